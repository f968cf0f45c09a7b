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

  document.querySelectorAll(".search input").forEach(function (input) {
    var home = document.getElementById(input.dataset.for), said = input.closest(".search").querySelector("output");
    var items = Array.from(home.tBodies ? home.tBodies[0].rows : home.children);
    input.addEventListener("input", function () {
      var words = input.value.toLowerCase().split(/\s+/).filter(Boolean), left = 0;
      items.forEach(function (item) {
        var text = item.textContent.toLowerCase();
        item.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
        if (!item.hidden) { left += 1; }
      });
      said.textContent = words.length ? left + " of " + items.length : "";
    });
  });

  // Values under the pointer: all series at the place on x that is nearest to it.
  var card = null;
  function unread() { if (card) { card.remove(); card = null; } }
  document.querySelectorAll("svg[data-read]").forEach(function (svg) {
    var series = JSON.parse(svg.dataset.read);
    svg.addEventListener("pointerleave", unread);
    svg.addEventListener("pointermove", function (event) {
      var box = svg.getBoundingClientRect(), unit = svg.viewBox.baseVal.width / box.width, near = null;
      var x = (event.clientX - box.left) * unit, y = (event.clientY - box.top) * unit;
      series.forEach(function (one) {
        one[2].forEach(function (point) {
          var far = Math.abs(point[0] - x) + Math.abs(point[1] - y) / 100;
          if (!near || far < near.far) { near = { far: far, x: point[0], name: point[2] }; }
        });
      });
      unread();
      if (!near || Math.abs(near.x - x) > 30) { return; }
      card = document.createElement("div"); card.id = "read";
      card.appendChild(document.createElement("strong")).textContent = near.name;
      series.forEach(function (one) {
        one[2].forEach(function (point) {
          if (point[2] !== near.name) { return; }
          var line = card.appendChild(document.createElement("div"));
          line.appendChild(document.createElement("i")).style.background = one[1];
          line.appendChild(document.createTextNode((one[0] && series.length > 1 ? one[0] + ": " : "") + point[3]));
        });
      });
      document.body.appendChild(card);
      var left = event.pageX + 14, room = document.documentElement.clientWidth - card.offsetWidth - 8;
      card.style.left = Math.max(4, Math.min(left, room)) + "px";
      card.style.top = event.pageY + 14 + "px";
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
