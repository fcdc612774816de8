"use strict";

const BUSY_MS = 400, IDLE_MS = 4000;
const OPEN = ["waiting", "working", "cancelling"];
const $ = (id) => document.getElementById(id);
const form = $("choices");

// --- asking the server -----------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("dreamsr does not answer; if it has ended, start it again");
  }
  const told = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
  if (!answer.ok) throw new Error(told.error);
  return told;
}

// --- choices ---------------------------------------------------------------------------------------------------------

function chosen() {
  const values = new FormData(form);
  return {
    weights: values.get("weights"),
    scale: form.scale.valueAsNumber,
    denoise: form.denoise.disabled ? null : form.denoise.valueAsNumber,
    fidelity: form.fidelity.valueAsNumber,
    format: values.get("format"),
    accept_damaged: values.has("accept_damaged"),
  };
}

function query(choices, more = {}) {
  return new URLSearchParams({ choices: JSON.stringify(choices), ...more });
}

function explain() {
  const weights = form.weights.selectedOptions[0].dataset;
  const megabytes = Number(weights.megabytes);
  $("weights-about").textContent = weights.about + (megabytes ? ` (fetched when first used: ${megabytes} MB)` : "");
  form.denoise_myself.disabled = weights.denoises !== "true";
  form.denoise.disabled = form.denoise_myself.disabled || !form.denoise_myself.checked;
  for (const output of form.querySelectorAll("output")) {
    const range = $(output.htmlFor);
    output.textContent = range.disabled ? "automatic" : range.valueAsNumber.toFixed(2);
  }
}

let checks = 0;

async function check() {
  explain();
  const number = ++checks;
  const problem = await ask("check?" + query(chosen())).then(() => "", (error) => error.message);
  if (number === checks) $("problem").textContent = problem;  // answers may come in another order
}

form.addEventListener("input", explain);
form.addEventListener("change", check);
form.addEventListener("submit", (event) => event.preventDefault());

// --- sending pictures, one after the other ---------------------------------------------------------------------------

const refused = [];  // pictures that never reached the list: as the server would tell of them
let toSend = [], sent = 0, isSending = false;

function add(files) {
  const choices = chosen();
  toSend.push(...[...files].map((file) => ({ file, choices })));
  if (!isSending) send();
}

async function send() {
  isSending = true;
  for (sent = 0; sent < toSend.length; sent++) {
    const { file, choices } = toSend[sent];
    $("sending").textContent = toSend.length > 1 ? `Adding ${sent + 1} of ${toSend.length}…` : "Adding…";
    const named = query(choices, { name: file.name, bytes: file.size });
    try {
      await ask("check?" + named);
      await ask("pictures?" + named, { method: "POST", body: file });
    } catch (error) {
      refused.push({ id: `refused-${refused.length}`, name: file.name, state: "failed", error: error.message });
    }
    look();
  }
  toSend = [];
  isSending = false;
  $("sending").textContent = "";
}

$("files").addEventListener("change", () => { add($("files").files); $("files").value = ""; });

function filesIn(transfer) {
  const isFolder = (item) => item.webkitGetAsEntry?.()?.isDirectory;
  if ([...transfer.items].some(isFolder)) $("problem").textContent = "Folders are not taken; drop the pictures in them.";
  return [...transfer.items].filter((item) => item.kind === "file" && !isFolder(item)).map((item) => item.getAsFile());
}

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") add(filesIn(event.dataTransfer));
  });
}
window.addEventListener("paste", (event) => add(filesIn(event.clipboardData)));

// --- the list --------------------------------------------------------------------------------------------------------

const cards = new Map();
let timer = 0, looks = 0;

async function look() {
  const turn = ++looks;
  clearTimeout(timer);
  let pictures = [];
  try {
    pictures = await ask("pictures");
    if (turn !== looks) return;  // a later look knows more
    show([...pictures, ...refused]);
    if ($("sending").dataset.lost) $("sending").textContent = $("sending").dataset.lost = "";
  } catch (error) {
    $("sending").textContent = error.message;
    $("sending").dataset.lost = "yes";
  }
  if (turn !== looks) return;
  const busy = isSending || pictures.some((picture) => OPEN.includes(picture.state));
  timer = setTimeout(look, busy ? BUSY_MS : IDLE_MS);
}

function show(pictures) {
  const ids = new Set(pictures.map((picture) => picture.id));
  for (const [id, card] of cards) if (!ids.has(id)) { card.remove(); cards.delete(id); }
  let before = 0;
  for (const picture of pictures) {
    if (!cards.has(picture.id)) cards.set(picture.id, $("pictures").appendChild(newCard(picture)));
    fill(cards.get(picture.id), picture, before);
    before += OPEN.includes(picture.state);
  }
  $("none").hidden = pictures.length > 0;
  const working = pictures.find((picture) => picture.state === "working");
  document.title = working ? `${percent(working.fraction)} – dreamsr` : "dreamsr";
}

function newCard(picture) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  const at = `pictures/${picture.id}`;
  card.querySelector(".name").textContent = picture.name;
  card.querySelector(".save").href = `${at}/result`;
  for (const one of card.querySelectorAll(".actions > *")) one.setAttribute("aria-label", `${one.textContent} ${picture.name}`);
  card.querySelector(".compare").addEventListener("click", () => compare(picture.name, `${at}/compare`));
  card.querySelector(".cancel").addEventListener("click", async () => {
    await act(card, `${at}/cancel`, "POST");
    card.focus();
  });
  card.querySelector(".remove").addEventListener("click", async () => {
    const next = card.nextElementSibling ?? card.previousElementSibling;
    const place = refused.findIndex((one) => one.id === picture.id);
    if (place >= 0) refused.splice(place, 1);
    else await act(card, at, "DELETE");
    await look();
    (next ?? $("files")).focus();
  });
  return card;
}

async function act(card, path, method) {
  try {
    await ask(path, { method });
  } catch (error) {
    $("told").textContent = card.querySelector(".state").textContent = error.message;
  }
  await look();
}

function fill(card, picture, before) {
  const isOpen = OPEN.includes(picture.state), isNew = card.dataset.state !== picture.state;
  card.dataset.state = picture.state;
  card.className = `card ${picture.state}`;
  card.querySelector(".facts").textContent = facts(picture);
  card.querySelector(".state").textContent = inWords(picture, before);
  const progress = card.querySelector("progress");
  progress.hidden = picture.state !== "working" && picture.state !== "cancelling";
  if (picture.fraction > 0) progress.value = picture.fraction;
  else progress.removeAttribute("value");
  progress.setAttribute("aria-label", `Progress of ${picture.name}`);
  card.querySelector(".cancel").hidden = !isOpen || picture.state === "cancelling";
  card.querySelector(".compare").hidden = !picture.compares;
  card.querySelector(".save").hidden = picture.state !== "done";
  card.querySelector(".remove").hidden = isOpen;
  if (!isNew || isOpen) return;
  card.querySelector(".notes").replaceChildren(...(picture.notes ?? []).map((note) => {
    const item = document.createElement("li");
    item.textContent = note;
    return item;
  }));
  if (picture.state === "done") card.querySelector(".save").download = picture.result.name;
  $("told").textContent = `${picture.name}: ${inWords(picture, before)}`;
}

const percent = (fraction) => `${Math.floor(100 * fraction)} %`;
const across = ([width, height]) => `${width} × ${height}`;

function facts(picture) {
  if (!picture.size?.[0]) return "";
  return [
    `${across(picture.input_size)} → ${across(picture.size)} px`,
    picture.weights,
    picture.format === "WEBP" ? "WebP" : picture.format,
  ].join(" · ");
}

function inWords(picture, before) {
  switch (picture.state) {
    case "waiting": return before ? `waiting, ${before} before it` : "waiting";
    case "working": {
      if (picture.doing) return picture.doing;
      if (!picture.fraction) return "working…";
      const left = picture.seconds * (1 - picture.fraction) / picture.fraction;
      return `${percent(picture.fraction)}, about ${duration(left)} left`;
    }
    case "cancelling": return "cancelling…";
    case "cancelled": return "cancelled";
    case "done": return `done in ${duration(picture.seconds)}, ${size(picture.result.bytes)}`;
    default: return picture.error;
  }
}

function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

// --- before and after ------------------------------------------------------------------------------------------------

function compare(name, address) {
  $("view-title").textContent = name;
  $("frame").src = address;
  $("view").showModal();
}

$("frame").addEventListener("load", () => {
  if (!$("view").open) return;
  const inside = $("frame").contentWindow;
  // Of a page for many pictures: its title, and the way from one to the next.
  for (const part of inside.document.querySelectorAll("h1, [aria-keyshortcuts=p], [aria-keyshortcuts=n]")) part.hidden = true;
  inside.addEventListener("keydown", (event) => { if (event.key === "Escape") $("view").close(); });
  inside.focus();
  inside.document.querySelector(".pair input")?.focus();
});
$("close").addEventListener("click", () => $("view").close());
$("view").addEventListener("close", () => { $("frame").src = "about:blank"; });

explain();
look();
