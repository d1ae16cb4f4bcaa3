// The theme: that of the system, unless the reader chose another one.
"use strict";
(() => {
  const order = ["auto", "light", "dark"];
  const root = document.documentElement;
  const load = () => {
    try { return localStorage.getItem("igos-theme") || "auto"; } catch { return "auto"; }
  };
  const apply = (theme) => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
  };
  let theme = load();
  if (!order.includes(theme)) theme = "auto";
  apply(theme);
  const changed = () => document.dispatchEvent(new Event("igos-theme"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      button.textContent = { auto: "◐ system", light: "☀ light", dark: "☾ dark" }[theme];
      button.setAttribute("aria-label", `Theme: ${theme === "auto" ? "as the system" : theme}. Change it.`);
    };
    button.addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try { localStorage.setItem("igos-theme", theme); } catch { /* not remembered */ }
      apply(theme);
      show();
      changed();
    });
    show();
  });
})();
