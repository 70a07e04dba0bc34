import { $, capital, post, showMeter, whoIsThere } from "./common.js";

async function start() {
  const me = await whoIsThere();
  if (me === null) return location.replace("/");
  $("user").textContent = capital(me.user);
  show(await showMeter());
}

function show(account) {
  const onPro = account !== null && account.plan.name !== "free";
  document.body.hidden = false;
  $("title").textContent = onPro ? "You are on Pro" : "More room to chat";
  $("free-now").hidden = onPro;
  $("pro-now").hidden = !onPro;
  $("take").hidden = onPro;
  $("back").textContent = onPro ? "Back to the chat" : "Not now";
  $("back").className = onPro ? "primary" : "quiet";
  $(onPro ? "back" : "take").focus();
}

$("take").addEventListener("click", async () => {
  $("take").disabled = true;
  const answer = await post("/api/upgrade").catch(() => null);
  if (answer?.ok) return location.assign("/");
  $("take").disabled = false;
  $("failed").hidden = false;
});

start();
