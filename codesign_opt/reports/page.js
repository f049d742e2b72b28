"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const said = document.getElementById("said");
  let timer = 0;

  function say(text) {
    said.textContent = text;
    window.clearTimeout(timer);
    timer = window.setTimeout(() => { said.textContent = ""; }, 2500);
  }

  // where the clipboard is not to be had, as on pages that are served without encryption
  function byHand(text) {
    const area = document.createElement("textarea");
    area.value = text;
    area.setAttribute("aria-hidden", "true");
    document.body.appendChild(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }

  async function copy(button) {
    const text = document.getElementById(button.dataset.copy).textContent;
    const name = button.getAttribute("aria-label").replace(/^Copy /, "");
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch (error) {
      done = byHand(text);
    }
    say(done ? `Copied: ${name}` : "This browser does not let pages copy: select the text and copy it");
  }

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", () => copy(button));
  }

  const asked = data.what_if;
  if (!asked) { return; }
  const sliders = asked.axes.map((axis) => document.getElementById(`ask-${axis.name}`));

  function show() {
    let place = 0;
    asked.axes.forEach((axis, i) => {
      const at = sliders[i] ? Number(sliders[i].value) : 0;
      place = place * axis.texts.length + at;
      if (sliders[i]) {
        document.getElementById(`said-${axis.name}`).textContent = axis.texts[at];
        sliders[i].setAttribute("aria-valuetext", axis.texts[at]);
      }
    });
    for (const [name, texts] of Object.entries(asked.answers)) {
      document.getElementById(`answer-${name}`).textContent = texts[place];
    }
  }

  for (const slider of sliders) {
    if (slider) { slider.addEventListener("input", show); }
  }
  show();
})();
