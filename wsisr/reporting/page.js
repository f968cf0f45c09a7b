"use strict";
(function () {
  var root = document.documentElement, hold = 300;
  root.classList.add("script");
  var theme = document.getElementById("theme"), names = ["auto", "light", "dark"], at = 0;
  function dress() {
    if (names[at] === "auto") { root.removeAttribute("data-theme"); }
    else { root.setAttribute("data-theme", names[at]); }
    theme.textContent = "Theme: " + names[at];
  }
  try { at = Math.max(0, names.indexOf(localStorage.getItem("wsisr-theme"))); } catch (e) { at = 0; }
  theme.addEventListener("click", function () {
    at = (at + 1) % names.length; dress();
    try { localStorage.setItem("wsisr-theme", names[at]); } catch (e) { /* pages from files may have no storage */ }
  });
  dress();

  document.querySelectorAll(".flicker").forEach(function (button) {
    var panes = Array.from(button.querySelectorAll(".pane")), shown = 0, since = 0;
    function show(next) {
      shown = (next + panes.length) % panes.length;
      panes.forEach(function (pane, index) { pane.classList.toggle("on", index === shown); });
      var name = function (index) { return panes[index % panes.length].querySelector(".name").textContent; };
      button.setAttribute("aria-label", button.dataset.alt + ". Shows " + name(shown) +
        "; press to change to " + name(shown + 1) + ".");
    }
    function down() { if (!since) { since = Date.now(); show(shown + 1); } }
    function up() { if (since && Date.now() - since > hold) { show(shown - 1); } since = 0; }
    button.addEventListener("pointerdown", function (event) { if (event.button === 0) { down(); } });
    ["pointerup", "pointercancel", "pointerleave"].forEach(function (name) { button.addEventListener(name, up); });
    button.addEventListener("keydown", function (event) {
      if (event.key === " " || event.key === "Enter") { event.preventDefault(); down(); }
    });
    button.addEventListener("keyup", function (event) {
      if (event.key === " " || event.key === "Enter") { event.preventDefault(); up(); }
    });
    button.addEventListener("blur", up);
    // Assistive technology clicks without pointer or key.
    button.addEventListener("click", function (event) { if (event.detail === 0 && !event.pointerType) { show(shown + 1); } });
    button.addEventListener("contextmenu", function (event) { if (since) { event.preventDefault(); } });
  });

  document.querySelectorAll("table.sortable").forEach(function (table) {
    var heads = Array.from(table.tHead.rows[0].cells), body = table.tBodies[0];
    heads.forEach(function (head, column) {
      head.querySelector("button").addEventListener("click", function () {
        var falling = head.getAttribute("aria-sort") === "ascending", sign = falling ? -1 : 1;
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        var key = function (row) { return row.cells[column].textContent.trim(); };
        var number = function (text) { return parseFloat(text.replace(/,/g, "")); };
        Array.from(body.rows).sort(function (a, b) {
          var x = key(a), y = key(b), m = number(x), n = number(y);
          if (head.classList.contains("n")) {
            if (isNaN(m) || isNaN(n)) { return isNaN(m) - isNaN(n); }
            return sign * (m - n);
          }
          return sign * x.localeCompare(y);
        }).forEach(function (row) { body.appendChild(row); });
      });
    });
  });

  var links = Array.from(document.querySelectorAll("nav a"));
  if ("IntersectionObserver" in window) {
    var seen = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (entry.isIntersecting) {
          links.forEach(function (link) { link.classList.toggle("here", link.hash === "#" + entry.target.id); });
        }
      });
    }, { rootMargin: "-20% 0px -70% 0px" });
    document.querySelectorAll("main section").forEach(function (section) { seen.observe(section); });
  }
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (one) { one.open = true; });
  });
})();
