// Make a new MongoDB a replica set of one member with two users: `root`, for its operator, and
// `queuesystem`, for the server, with rights on one database. Run with mongosh on the database's own
// host, which MongoDB lets in as long as it has no users. It can run again, after it was interrupted
// too: what is there stays, and `queuesystem` gets the password that is configured now.

const { MONGODB_PASSWORD, MONGODB_ROOT_PASSWORD } = process.env;
const PRIMARY_SECONDS = 60;

const admin = db.getSiblingDB("admin");
const own = db.getSiblingDB("queuesystem");

function logIn() {
  try {
    return admin.auth("root", MONGODB_ROOT_PASSWORD).ok === 1;
  } catch {
    return false; // there is no user yet, or this is not the password
  }
}

function initiate() {
  try {
    rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "mongodb:27017" }] });
  } catch (error) {
    if (error.codeName === "Unauthorized") {
      throw new Error("root has another password here: the volume is older than .env");
    }
    if (error.codeName !== "AlreadyInitialized") throw error;
  }
}

function waitForPrimary() {
  for (let second = 0; !db.hello().isWritablePrimary; second++) {
    if (second === PRIMARY_SECONDS) throw new Error(`no primary after ${PRIMARY_SECONDS} s`);
    sleep(1000);
  }
}

const known = logIn();
if (!known) initiate();
waitForPrimary();
if (!known) {
  admin.createUser({ user: "root", pwd: MONGODB_ROOT_PASSWORD, roles: ["root"] });
  if (!logIn()) throw new Error("root cannot log in");
}

const server = { pwd: MONGODB_PASSWORD, roles: [{ role: "readWrite", db: "queuesystem" }] };
if (own.getUser("queuesystem")) own.updateUser("queuesystem", server);
else own.createUser({ user: "queuesystem", ...server });
print("MongoDB is set up");
