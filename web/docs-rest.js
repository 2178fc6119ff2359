// The documentation page: openapi.json, and a form to try each call.
import { copyButton, exampleBlocks, examplesOf, prose, schemaTable, slug, table, typeOf } from "./docs-parts.js";
import { entry, heading } from "./docs-search.js";
import { el, jsonBlock } from "./dom.js";

/** Shows the REST paths in `section`, by their tags. */
export function showRest(section, api) {
  section.append(prose(api.info.description));
  const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method, path, operation })));
  for (const { name, description } of api.tags) {
    const title = [el("h2", { text: name[0].toUpperCase() + name.slice(1) }), el("p", { class: "soft", text: description })];
    const tagged = operations.filter(({ operation }) => operation.tags[0] === name).map(showOperation);
    section.append(...title, ...tagged);
    heading(title, tagged);
  }
}

// OpenAPI takes this header for no parameter; on this page it is filled in like one.
const KEY = {
  name: "key", in: "header", required: true, schema: { type: "string" },
  description: "From the first frame of the WebSocket; sent as `Authorization: Bearer <key>`",
};

function showOperation({ method, path, operation }) {
  const id = slug(`${method} ${path}`);
  const { parameters: own = [], requestBody, responses, security, description, summary } = operation;
  const parameters = security ? [...own, KEY] : own;
  const body = requestBody?.content["application/json"];
  const badge = () => el("span", { class: `method ${method}`, text: method.toUpperCase() });
  const details = el("details", { id },
    el("summary", {}, badge(), el("span", { class: "path", text: path }), el("span", { class: "about", text: summary })),
    el("div", { class: "inside" }, prose(description), ...showParameters(parameters),
      ...(body ? [el("h3", { text: "Body" }), schemaTable(body.schema), ...exampleBlocks(examplesOf(body))] : []),
      tryForm(id, method, path, parameters, requestBody),
      el("h3", { text: "Responses" }), ...Object.entries(responses).map(showResponse)));
  entry("rest-contents", id, [badge(), path.replace("/api", "")], details);
  return details;
}

function showParameters(parameters) {
  if (!parameters.length) return [];
  return [el("h3", { text: "Parameters" }), table(["Name", "Type", "Description"], parameters.map((parameter) => [
    el("code", { text: parameter.name, class: parameter.required ? "required" : "optional" }),
    `${typeOf(parameter.schema)}, in the ${parameter.in}`,
    prose([parameter.description, "default" in parameter.schema ? `default ${parameter.schema.default}` : ""].filter(Boolean).join(", ")),
  ]))];
}

function showResponse([status, { description, content }]) {
  const json = content?.["application/json"];
  const details = el("details", {}, el("summary", {},
    el("span", { class: `status ${status < 300 ? "good" : "bad"}`, text: status }), el("span", { class: "about", text: description })));
  if (json) details.append(el("div", { class: "inside" }, schemaTable(json.schema), ...exampleBlocks(examplesOf(json))));
  return details;
}

function tryForm(id, method, path, parameters, requestBody) {
  const inputs = parameters.map((parameter) => {
    const value = parameter.example ?? parameter.schema.default ?? "";
    const input = el("input", { id: `${id}-${parameter.name}`, name: parameter.name, value, autocomplete: "off" });
    return { parameter, input };
  });
  const example = requestBody && examplesOf(requestBody.content["application/json"])[0][1];
  const body = example && el("textarea", { id: `${id}-body`, spellcheck: "false", text: JSON.stringify(example, null, 2) });
  const result = el("div", { "aria-live": "polite" });
  const send = el("button", { class: "button strong", text: "Send" });

  const request = () => {
    const query = new URLSearchParams();
    let target = path;
    for (const { parameter, input } of inputs) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (parameter.in === "query" && input.value) query.set(parameter.name, input.value);
    }
    return target + (query.size ? `?${query}` : "");
  };
  const headers = () => ({
    ...(body && { "content-type": "application/json" }),
    ...Object.fromEntries(inputs.filter(({ parameter, input }) => parameter === KEY && input.value)
      .map(({ input }) => ["authorization", `Bearer ${input.value.trim()}`])),
  });
  const curl = () => {
    const quoted = (value) => `'${value.replaceAll("'", "'\\''")}'`;
    const sent = Object.entries(headers()).map(([name, value]) => ` -H ${quoted(`${name}: ${value}`)}`).join("");
    const data = sent + (body ? ` -d ${quoted(body.value)}` : "");
    return `curl -X ${method.toUpperCase()} ${quoted(location.origin + request())}${data}`;
  };
  const form = el("form", { class: "try", "aria-label": `Try ${method.toUpperCase()} ${path}` }, el("h3", { text: "Try it" }),
    ...inputs.flatMap(({ parameter, input }) => [el("label", { for: input.id, text: parameter.name }), input]),
    ...(body ? [el("label", { for: body.id, text: "Body" }), body] : []),
    el("div", { class: "buttons" }, send, copyButton(curl, "Copy as curl")), result);
  form.onsubmit = async (event) => {
    event.preventDefault();
    send.disabled = true;
    const started = performance.now();
    try {
      const options = { method: method.toUpperCase(), headers: headers(), ...(body && { body: body.value }) };
      const response = await fetch(request(), options);
      showResult(result, response, await response.text(), Math.round(performance.now() - started));
    } catch (error) {
      result.replaceChildren(el("p", { class: "status bad", text: `No answer: ${error.message}` }));
    }
    send.disabled = false;
    send.focus();
  };
  return form;
}

function showResult(result, response, text, ms) {
  let block;
  try {
    block = jsonBlock(JSON.parse(text));
  } catch {
    block = text ? el("pre", { text, tabindex: "0" }) : el("p", { class: "soft", text: "An empty body" });
  }
  const status = el("span", { class: `status ${response.ok ? "good" : "bad"}`, text: response.status });
  result.replaceChildren(copyButton(text), el("p", {}, status, `${ms} ms`), block);
}
