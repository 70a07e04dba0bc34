// What both pages share: talking to the app, and the meter.

export const $ = (id) => document.getElementById(id);
export const capital = (name) => name.charAt(0).toUpperCase() + name.slice(1);
export const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
export const dollars = (amount) => "$" + Number(amount).toFixed(amount > 0 && amount < 1 ? 4 : 2);

export const post = (path, body = {}) =>
  fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export async function read(path) {
  const answer = await fetch(path).catch(() => null);
  return answer?.ok ? answer.json() : null;
}

// Who is signed in, from the app; null for nobody.
export async function whoIsThere() {
  const me = await read("/api/me");
  return me?.user ? me : null;
}

// What he has used, from Paygent: {plan, used, limit, remaining, percent, resets_at, state}.
export async function showMeter() {
  const account = await read("/paygent/me");
  $("panel").className = `panel ${account?.state ?? "unknown"}`;
  if (account === null) {
    $("standing").textContent = "Your usage cannot be read at the moment.";
    return null;
  }
  const percent = Math.min(100, account.percent ?? 0);
  const amounts = [dollars(account.used), account.limit === null ? "used" : `of $${account.limit}`];
  $("plan").textContent = account.plan.label;
  [$("used").textContent, $("limit").textContent] = amounts;
  $("bar").style.width = `${percent}%`;
  $("meter").setAttribute("aria-valuenow", Math.round(percent));
  $("meter").setAttribute("aria-valuetext", amounts.join(" "));
  say($("standing"), standing(account, percent));
  $("resets").textContent = account.resets_at ? `Starts anew on ${day(account.resets_at)}.` : "";
  $("plans").hidden = account.plan.name !== "free";
  return account;
}

function standing({ state, limit }, percent) {
  if (state === "hard_gate") return "Your plan is used up.";
  if (state === "soft_gate") return `${Math.round(percent)}% used: your plan is nearly used up.`;
  return limit === null ? "This plan has no limit." : `${Math.round(percent)}% used.`;
}

const day = (moment) => new Date(moment).toLocaleDateString("en", { day: "numeric", month: "long" });

// Screen readers announce what changes: a sentence that stays the same is left alone.
function say(element, sentence) {
  if (element.textContent !== sentence) element.textContent = sentence;
}
