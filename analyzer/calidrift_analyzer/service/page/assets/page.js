// Zoom of pictures, and pages that follow what happens. Everything else works without this file.
"use strict";

const zoomable = () => {
  for (const figure of document.querySelectorAll("figure.zoomable:not([data-zoom])")) {
    const picture = figure.querySelector("svg");
    const box = figure.querySelector(".scroll");
    if (!picture || !box) continue;
    figure.dataset.zoom = "1";
    const width = Number(picture.getAttribute("width"));
    const height = Number(picture.getAttribute("height"));
    let scale = 1;
    const set = (wanted) => {
      scale = Math.min(4, Math.max(0.5, wanted));
      picture.style.width = `${width * scale}px`;
      picture.style.height = `${height * scale}px`;
    };
    const bar = document.createElement("div");
    bar.className = "zoom";
    for (const [text, name, change] of [
      ["−", "Zoom out", () => set(scale / 1.5)],
      ["+", "Zoom in", () => set(scale * 1.5)],
      ["Reset", "Reset zoom", () => set(1)],
    ]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.setAttribute("aria-label", name);
      button.addEventListener("click", change);
      bar.append(button);
    }
    figure.insertBefore(bar, box);
  }
};

// Whoever reads with the keyboard, has opened, scrolled or zoomed something is not disturbed.
const busy = (main) =>
  document.hidden ||
  (document.activeElement !== main && main.contains(document.activeElement)) ||
  main.querySelector("details[open], svg[style]") !== null ||
  !document.getSelection().isCollapsed ||
  [...main.querySelectorAll(".scroll")].some((box) => box.scrollTop || box.scrollLeft);

const follow = async () => {
  const main = document.querySelector("main[data-live]");
  if (!main) return;
  if (!busy(main)) {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
      if (answer.ok) {
        const next = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = next.querySelector("main");
        if (fresh && !busy(main)) {
          main.replaceWith(fresh);
          zoomable();
        }
      }
    } catch {
      // The service is away for a moment; the page stays as it is and asks again.
    }
  }
  const again = document.querySelector("main[data-live]");
  if (again) setTimeout(follow, 1000 * Number(again.dataset.live));
};

zoomable();
const live = document.querySelector("main[data-live]");
if (live) setTimeout(follow, 1000 * Number(live.dataset.live));
