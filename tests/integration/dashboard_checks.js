// What test_dashboard.py asks of a page: each function gives a list of what is wrong. An expression, without an end.
(() => {
  const rgb = (text) => {
    const numbers = text.match(/[\d.]+/g).map(Number);
    return numbers.length < 4 ? [...numbers, 1] : numbers;
  };
  const part = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const contrast = (one, other) => {
    const [high, low] = [light(rgb(one)), light(rgb(other))].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (rgb(color)[3] === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };

  // Text below 4.5 (3 where it is large), drawings below 3: the AA of WCAG 2.
  const faint = () => {
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const text = texts.currentNode.textContent.trim();
      const element = texts.currentNode.parentElement;
      if (!text || !element.getClientRects().length || element.closest("noscript, svg, .skip, .unseen")) continue;
      const style = getComputedStyle(element);
      const has = contrast(style.color, behind(element));
      if (has < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) found.push(`${text.slice(0, 30)}: ${has.toFixed(2)}`);
    }
    const lane = document.querySelector(".lane");
    for (const shape of ["rect.archived", "rect.broker", ".hatch"]) {
      const drawn = document.querySelector(shape);
      if (!drawn || !lane) continue;
      const has = contrast(getComputedStyle(drawn).fill, getComputedStyle(lane).fill);
      if (has < 3) found.push(`${shape}: ${has.toFixed(2)}`);
    }
    return found;
  };

  // What a screen reader finds without a name, or in the wrong place.
  const unnamed = () => {
    const found = [];
    const all = (selector) => [...document.querySelectorAll(selector)];
    for (const each of all("a[href], button, svg[role=img], [role=region], nav")) {
      const says = each.tagName !== "svg" && each.textContent.trim();
      if (!says && !each.getAttribute("aria-label")) found.push(`no name: ${each.outerHTML.slice(0, 80)}`);
    }
    for (const each of all("input, select")) if (!each.labels.length) found.push(`no label: ${each.outerHTML}`);
    let before = 0;
    for (const each of all("h1, h2, h3, h4")) {
      const level = Number(each.tagName[1]);
      if (level > before + 1) found.push(`${each.tagName} behind h${before}: ${each.textContent}`);
      before = level;
    }
    const ids = all("[id]").map((each) => each.id);
    for (const id of ids) if (ids.filter((each) => each === id).length > 1) found.push(`#${id} twice`);
    for (const each of all("[aria-labelledby]")) {
      if (!document.getElementById(each.getAttribute("aria-labelledby"))) found.push(each.outerHTML.slice(0, 80));
    }
    for (const one of ["main", "h1"]) if (all(one).length !== 1) found.push(`not one ${one}`);
    if (!document.documentElement.lang) found.push("no language");
    return found;
  };
  return { faint, unnamed };
})()