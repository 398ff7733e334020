// What the server offers, and a form for the params of each method: made from its JSON Schema.

/**
 * @typedef {Record<string, any>} Schema
 * @typedef {{name: string, summary: string, params: Schema, stream: boolean, live: boolean,
 *   scope: string | null, timeout: number | null, replay: string}} Method
 * @typedef {"text" | "number" | "integer" | "yes or no" | "choice" | "json"} Kind
 * @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Input
 * @typedef {{name: string, kind: Kind, type: string, required: boolean, schema: Schema}} Field
 */

const KINDS = /** @type {Record<string, Kind>} */ ({
  string: "text",
  number: "number",
  integer: "integer",
  boolean: "yes or no",
});

/**
 * The schema behind references and without the null that only means "may be left out".
 *
 * @param {Schema} schema @param {Record<string, Schema>} defs @returns {Schema}
 */
function plain(schema, defs) {
  if (schema.$ref) return plain(defs[schema.$ref.split("/").pop()] ?? {}, defs);
  const choices = (schema.anyOf ?? []).filter((/** @type {Schema} */ one) => one.type !== "null");
  return choices.length === 1 ? { ...plain(choices[0], defs), default: schema.default } : schema;
}

/**
 * The params of a method, in the order of its signature.
 *
 * @param {Method} method @returns {Field[]}
 */
export function fieldsOf(method) {
  const defs = method.params.$defs ?? {};
  const { properties = {}, required = [] } = plain(method.params, defs);
  return Object.entries(properties).map(([name, property]) => {
    const schema = plain(property, defs);
    const kind = schema.enum ? "choice" : (KINDS[schema.type] ?? "json");
    const type = schema.enum ? schema.enum.map(encode).join(" | ") : (schema.type ?? "any");
    return { name, kind, type, required: required.includes(name), schema };
  });
}

/** @param {unknown} value */
const encode = (value) => JSON.stringify(value);

/** How a programmer would write it. @param {Method} method */
export function signatureOf(method) {
  const params = fieldsOf(method).map(({ name, required }) => (required ? name : `${name}?`));
  return `${method.name}(${params.join(", ")})`;
}

/** What is special about a method. @param {Method} method */
export function traitsOf(method) {
  const traits = [];
  if (method.stream) traits.push("stream");
  if (method.live) traits.push("live: results are not kept");
  if (method.replay !== "always") traits.push(`replay: ${method.replay.replaceAll("_", " ")}`);
  if (method.timeout !== null) traits.push(`timeout ${method.timeout} s`);
  if (method.scope !== null) traits.push(`scope ${method.scope}`);
  return traits.join(" · ");
}

/** The params of one method as a form. */
export class ParamsForm {
  /** @type {{field: Field, input: Input}[]} */
  #inputs = [];
  element = document.createElement("div");

  /** @param {Method} method */
  constructor(method) {
    for (const field of fieldsOf(method)) this.#add(field, `param-${method.name}-${field.name}`);
    if (!this.#inputs.length) this.element.append(paragraph("This method takes none."));
  }

  /** @param {Field} field @param {string} id */
  #add(field, id) {
    const input = inputOf(field);
    const label = document.createElement("label");
    const hint = paragraph(hintOf(field));
    input.id = label.htmlFor = id;
    input.name = field.name;
    hint.id = `${id}-hint`;
    input.setAttribute("aria-describedby", hint.id);
    const name = document.createElement("code");
    name.textContent = field.name;
    const type = document.createElement("span");
    type.className = "type";
    type.textContent = field.required ? field.type : `${field.type}, optional`;
    label.append(name, type);
    const group = document.createElement("div");
    group.className = input.type === "checkbox" ? "param check" : "param";
    group.append(label, input, ...(hint.textContent ? [hint] : []));
    this.element.append(group);
    input.addEventListener("input", () => input.setCustomValidity(""));
    this.#inputs.push({ field, input });
  }

  /** The params as they were filled in; undefined, with a field pointed out, when it is wrong. */
  read() {
    /** @type {Record<string, unknown>} */
    const params = {};
    for (const { field, input } of this.#inputs) {
      try {
        const value = valueOf(field, input);
        if (value !== undefined) params[field.name] = value;
      } catch {
        input.setCustomValidity('This is not JSON. Text is written in quotes: "text"');
      }
      if (!input.reportValidity()) return undefined;
    }
    return params;
  }
}

/** @param {Field} field @param {Input} input */
function valueOf({ kind, required, schema }, input) {
  if (input instanceof HTMLInputElement && kind === "yes or no") {
    return required || input.checked !== !!schema.default ? input.checked : undefined;
  }
  const { value } = input;
  if (value === "" && !(kind === "text" && required)) return undefined;
  return kind === "text" ? value : JSON.parse(value);
}

/** @param {Field} field */
function inputOf({ kind, required, schema }) {
  const shown = schema.default === undefined || schema.default === null ? "" : schema.default;
  if (kind === "choice") {
    const select = document.createElement("select");
    if (!required) select.append(new Option(`default: ${shown}`, ""));
    for (const value of schema.enum) select.append(new Option(`${value}`, encode(value)));
    return select;
  }
  if (kind === "text" || kind === "json") {
    const area = document.createElement("textarea");
    area.rows = required ? 2 : 1;
    area.spellcheck = false;
    area.placeholder = kind === "text" ? shown : shown && encode(shown);
    area.required = required && kind === "json";
    if (schema.minLength) area.minLength = schema.minLength;
    if (schema.maxLength) area.maxLength = schema.maxLength;
    return area;
  }
  const input = document.createElement("input");
  if (kind === "yes or no") {
    input.type = "checkbox";
    input.checked = !!schema.default;
    return input;
  }
  input.type = "number";
  input.step = kind === "integer" ? "1" : "any";
  input.min = schema.minimum ?? "";
  input.max = schema.maximum ?? "";
  input.placeholder = `${shown}`;
  input.required = required;
  return input;
}

/** @param {Field} field */
function hintOf({ kind, schema }) {
  const { description, minimum, maximum } = schema;
  const parts = description ? [description] : [];
  if (kind === "json") parts.push('JSON, as "text", 42 or {"a": [1]}');
  if (minimum !== undefined && maximum !== undefined) parts.push(`${minimum} to ${maximum}`);
  else if (minimum !== undefined) parts.push(`at least ${minimum}`);
  else if (maximum !== undefined) parts.push(`at most ${maximum}`);
  return parts.join(", ");
}

/** @param {string} text */
function paragraph(text) {
  const element = document.createElement("p");
  element.className = "hint";
  element.textContent = text;
  return element;
}
