import { $, capital, dollars, make, post, read, showMeter, whoIsThere } from "./common.js";

let memory; // where the conversation is kept while the user is on another page
let messages = [];
let busy = false;

// --- who is there, and what he has used ---

async function start() {
  const me = await whoIsThere();
  $("login").hidden = me !== null;
  $("app").hidden = me === null;
  if (me === null) return document.querySelector(".people button").focus();
  $("user").textContent = capital(me.user);
  const { draft, model } = recall(`chat of ${me.user}`);
  $("text").value = draft;
  showChoices(me.choices, model);
  showModels(me.models);
  grow();
  $("text").focus();
  await showMeter();
  toTheEnd();
}

async function refresh() {
  const [me] = await Promise.all([read("/api/me"), showMeter()]);
  if (me?.user) showModels(me.models);
}

function showModels(models) {
  const rows = models.map((row) => {
    const line = make("tr");
    line.append(make("th", { scope: "row", textContent: row.model }));
    for (const value of [row.tokens_used.toLocaleString("en"), dollars(row.cost)]) {
      line.insertCell().textContent = value;
    }
    return line;
  });
  $("models").tBodies[0].replaceChildren(...rows);
  $("models").hidden = rows.length === 0;
}

function showChoices(choices, last) {
  const chosen = choices.includes(last) ? last : choices[0];
  const labels = choices.map((model) => {
    const label = make("label");
    const input = make("input", { type: "radio", name: "model", value: model, checked: model === chosen });
    label.append(input, make("span", { textContent: model }));
    return label;
  });
  $("choices").replaceChildren($("choices").firstElementChild, ...labels);
  $("send").disabled = choices.length === 0;
  if (choices.length === 0) {
    tell({ title: "No model to talk to", detail: "Start the app with a provider's key in its environment." });
  }
}

// --- the conversation ---

function recall(name) {
  memory = name;
  const kept = JSON.parse(sessionStorage.getItem(name) ?? "null") ?? { messages: [], draft: "" };
  messages = kept.messages;
  for (const { role, content, model } of messages) bubble(role, content, model);
  return kept;
}

function keep(model) {
  sessionStorage.setItem(memory, JSON.stringify({ messages, model, draft: $("text").value }));
}

function toTheEnd() {
  $("log").scrollTop = $("log").scrollHeight;
}

function bubble(role, text, model) {
  $("hint").hidden = true;
  const turn = make("div", { className: `turn ${role}` });
  const said = make("div", { className: "said", textContent: text });
  turn.append(make("span", { className: "hidden", textContent: role === "user" ? "You: " : "Answer: " }), said);
  if (model) turn.append(make("span", { className: "from", textContent: model }));
  $("log").append(turn);
  toTheEnd();
  return { turn, said };
}

async function send(text) {
  const model = document.querySelector("input[name=model]:checked").value;
  const question = { role: "user", content: text };
  const asked = bubble("user", text);
  const answer = bubble("assistant", "", model);
  let content = "";
  answer.said.classList.add("waiting");
  $("log").setAttribute("aria-busy", "true"); // screen readers wait for the whole answer
  const turns = [...messages, question].map(({ role, content }) => ({ role, content }));
  const problem = await ask({ model, messages: turns }, (piece) => {
    const followed = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 40;
    answer.said.textContent = content += piece;
    if (followed) toTheEnd();
  });
  answer.said.classList.remove("waiting");
  $("log").setAttribute("aria-busy", "false");
  if (content) {
    messages = [...messages, question, { role: "assistant", content, model }];
    if (problem) answer.turn.classList.add("cut");
  } else {
    asked.turn.remove();
    answer.turn.remove();
    $("hint").hidden = messages.length > 0;
    $("text").value = text; // nothing is lost: it can be sent again
  }
  tell(problem);
  keep(model);
}

// Sends one turn; returns the problem object of a refusal, whether it came instead of the stream or within it.
async function ask(body, onText) {
  try {
    const answer = await post("/api/chat", body);
    if (!answer.ok) return await problemOf(answer);
    for await (const { name, data } of eventsOf(answer.body)) {
      if (name === "text") onText(data.text);
      else if (name === "error") return data;
      else if (name === "done") return null;
    }
  } catch {
    // the connection broke: as below
  }
  return { title: "The answer broke off", detail: "The connection failed. Please try again." };
}

async function problemOf(answer) {
  const problem = await answer.json().catch(() => ({}));
  if (problem.title) return problem;
  const detail = typeof problem.detail === "string" ? problem.detail : "Please try again.";
  return { title: `No answer (${answer.status})`, detail };
}

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").filter(Boolean).map((line) => line.split(/: (.*)/s)));
      if (fields.data) yield { name: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

// Shows a problem, with the way on that it names; null takes it away.
function tell(problem) {
  $("blocked").hidden = problem === null;
  if (problem === null) return;
  const { url, label } = problem.upgrade ?? {};
  $("blocked-title").textContent = problem.title;
  $("blocked-detail").textContent = problem.detail ?? "";
  $("upgrade").hidden = !url;
  if (url) {
    $("upgrade").href = url;
    $("upgrade").textContent = label;
    $("upgrade").focus();
  }
  toTheEnd();
}

// --- what the user does ---

for (const button of document.querySelectorAll(".people button")) {
  button.addEventListener("click", async () => {
    await post("/api/login", { name: button.dataset.name });
    await start();
  });
}

$("logout").addEventListener("click", async () => {
  sessionStorage.clear();
  await post("/api/logout");
  location.reload();
});

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || busy || $("send").disabled) return;
  busy = $("send").disabled = true;
  $("text").value = "";
  grow();
  await send(text);
  await refresh();
  busy = $("send").disabled = false;
  grow();
  if ($("upgrade").hidden || $("blocked").hidden) $("text").focus();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});

function grow() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight}px`;
}
$("text").addEventListener("input", grow);

start();
