# The server as an image: `docker build --tag queuesystem .` (BuildKit, which is Docker's default).
#
# Whoever reaches PyPI through a mirror or behind an own certificate authority hands pip's
# configuration to the build as secrets, of which nothing stays in the image:
#   docker build --secret id=pip.conf,src=pip.conf --secret id=pip.pem,src=ca.pem .
# where pip.conf says `cert = /run/secrets/pip.pem`. BASE is any image with Python 3.11 or newer
# as `python3`, its venv module, and glibc.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ENV PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source

# Only wheels, and only those whose hashes are in the lock. They bring the build's own tools too.
COPY requirements.lock ./
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=pip.pem \
    python3 -m venv /tools \
    && /tools/bin/pip download --quiet --require-hashes --no-deps --only-binary=:all: \
        --requirement requirements.lock --dest /wheels \
    && /tools/bin/pip install --quiet --no-index --no-deps /wheels/*.whl

COPY pyproject.toml README.md LICENSE ./
COPY deploy/healthcheck.py deploy/
COPY protocol protocol
COPY server server
# Without an index: what is installed is our wheel, and what it needs of the wheels above. pip
# compiles it to bytecode, so that nothing has to be written when it runs.
RUN /tools/bin/pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir /ours . \
    && python3 -m venv --without-pip /opt/queuesystem \
    && /tools/bin/pip --python /opt/queuesystem/bin/python install --quiet --no-index \
        --find-links /wheels /ours/*.whl \
    && install -m 0644 -D deploy/healthcheck.py /opt/queuesystem/share/healthcheck.py


FROM ${BASE}
LABEL org.opencontainers.image.title="queueSystem" \
      org.opencontainers.image.description="A WebSocket connection server: a durable FIFO queue and a worker per authenticated session" \
      org.opencontainers.image.licenses="MIT"

# A fixed number, so that volumes keep their owner and Kubernetes can see that it is not root.
RUN groupadd --system --gid 10001 queuesystem \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin queuesystem \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /opt/queuesystem /opt/queuesystem

# Every setting of `queuesystem serve` is such a variable. The root file system may be read-only:
# the journal is in the volume.
ENV PATH=/opt/queuesystem/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    QUEUESYSTEM_HOST=0.0.0.0 \
    QUEUESYSTEM_PORT=8765 \
    QUEUESYSTEM_ADMIN_HOST=0.0.0.0 \
    QUEUESYSTEM_ADMIN_PORT=9465 \
    QUEUESYSTEM_JOURNAL=sqlite:////data/queuesystem.db \
    QUEUESYSTEM_LOG_FORMAT=json
VOLUME /data
# Modules with methods of your own are found here: mount or copy them.
WORKDIR /app
USER 10001:10001
EXPOSE 8765 9465
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "/opt/queuesystem/share/healthcheck.py"]
# No shell in between: signals reach the server.
ENTRYPOINT ["queuesystem"]
CMD ["serve"]
