const $ = (id) => document.getElementById(id);
const post = (path, body = {}) =>
  fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const dollars = (amount) => "$" + (amount < 1 ? amount.toFixed(4) : amount.toFixed(2));
const capital = (name) => name.charAt(0).toUpperCase() + name.slice(1);

const PRO = { label: "Upgrade to Pro", suggested_plan: { name: "pro" } };
let messages = [];
let busy = false;

// --- who is there, and what he has used ---

async function start() {
  const account = await (await fetch("/api/me")).json();
  $("login").hidden = account.user !== null;
  $("app").hidden = account.user === null;
  if (account.user === null) return document.querySelector(".people button").focus();
  showChoices(account.choices);
  show(account);
  $("text").focus();
  if (account.plan === "free" && new URLSearchParams(location.search).has("upgrade-from")) {
    offer({ title: "More room to chat", detail: "Pro has a hundred times the credit.", upgrade: PRO });
  }
}

function show(account) {
  const share = account.limit ? account.used / account.limit : 1;
  const percent = Math.min(100, share * 100);
  $("user").textContent = capital(account.user);
  $("plan").textContent = capital(account.plan);
  $("used").textContent = dollars(account.used);
  $("limit").textContent = `of ${dollars(account.limit)}`;
  $("bar").style.width = `${percent}%`;
  $("meter").setAttribute("aria-valuenow", Math.round(percent));
  $("app").className = `app ${account.gate}`;
  $("standing").textContent = {
    ok: `${Math.round(percent)} % of the plan used`,
    soft_gate: `${Math.round(percent)} % used: the plan is nearly spent`,
    hard_gate: "The plan is spent",
  }[account.gate];
  const rows = account.models.map((row) => {
    const line = document.createElement("tr");
    for (const value of [row.model, row.tokens_used.toLocaleString("en"), dollars(row.cost)]) {
      line.insertCell().textContent = value;
    }
    return line;
  });
  $("models").tBodies[0].replaceChildren(...rows);
  $("models").hidden = rows.length === 0;
  if (account.gate !== "hard_gate") $("blocked").hidden = true;
}

function showChoices(choices) {
  const labels = choices.map((model, index) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "model", value: model });
    input.checked = index === 0;
    const name = Object.assign(document.createElement("span"), { textContent: model });
    label.append(input, name);
    return label;
  });
  $("choices").replaceChildren($("choices").firstElementChild, ...labels);
}

// --- the conversation ---

function say(role, text, model) {
  $("hint").hidden = true;
  const bubble = Object.assign(document.createElement("div"), { className: `said ${role}`, textContent: text });
  $("log").append(bubble);
  if (model) {
    $("log").append(Object.assign(document.createElement("p"), { className: "from", textContent: model }));
  }
  $("log").scrollTop = $("log").scrollHeight;
  return bubble;
}

async function send(text) {
  const model = document.querySelector("input[name=model]:checked").value;
  const asked = say("user", text);
  const bubble = say("assistant", "", model);
  bubble.classList.add("waiting");
  const turn = [...messages, { role: "user", content: text }];
  let said = "";
  const problem = await ask({ model, messages: turn }, (piece) => {
    said += piece;
    bubble.textContent = said;
    $("log").scrollTop = $("log").scrollHeight;
  });
  bubble.classList.remove("waiting");
  if (said) {
    messages = [...turn, { role: "assistant", content: said }];
  } else {
    bubble.nextElementSibling.remove();
    bubble.remove();
    asked.remove();
    $("text").value = text;
  }
  if (problem) refuse(problem);
}

// Sends one turn; returns the problem object of a refusal, whether it came instead of the stream or within it.
async function ask(body, onText) {
  let answer;
  try {
    answer = await post("/api/chat", body);
    if (!answer.ok) return await answer.json();
    for await (const { name, data } of eventsOf(answer.body)) {
      if (name === "text") onText(data.text);
      else if (name === "account") show(data);
      else if (name === "error") return data;
    }
  } catch {
    const status = answer ? ` (${answer.status})` : "";
    return { title: "No answer", detail: `The connection failed${status}. Please try again.` };
  }
  return null;
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

async function refuse(problem) {
  show(await (await fetch("/api/me")).json());
  offer(problem);
}

function offer(problem) {
  $("blocked-title").textContent = problem.title ?? "This did not work";
  $("blocked-detail").textContent = problem.detail ?? "";
  $("upgrade").textContent = problem.upgrade?.label ?? "";
  $("upgrade").hidden = !problem.upgrade?.suggested_plan;
  $("blocked").hidden = false;
  if (!$("upgrade").hidden) $("upgrade").focus();
}

// --- what the user does ---

for (const button of document.querySelectorAll(".people button")) {
  button.addEventListener("click", async () => {
    await post("/api/login", { name: button.dataset.name });
    await start();
  });
}

$("logout").addEventListener("click", async () => {
  await post("/api/logout");
  location.reload();
});

$("upgrade").addEventListener("click", async () => {
  const answer = await post("/api/upgrade");
  if (!answer.ok) return;
  $("blocked").hidden = true;
  show(await answer.json());
  $("text").focus();
});

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || busy) return;
  busy = $("send").disabled = true;
  $("text").value = "";
  grow();
  await send(text);
  busy = $("send").disabled = false;
  if ($("blocked").hidden) $("text").focus();
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
