// Whatever is wider than its box scrolls there, also by the keyboard; an interval is never broken.
document.addEventListener("DOMContentLoaded", () => {
  for (const cell of document.querySelectorAll(".bd-article td")) {
    const text = cell.textContent;
    if (/^[-+]?\d.*\]$/.test(text) && !cell.children.length) {
      cell.textContent = text.replaceAll(", ", ",\u00a0");
    }
    if (text.length > 80) cell.classList.add("prose");
  }
  const letKeysScroll = (box) => {
    const wide = box.scrollWidth > box.clientWidth + 1;
    if (wide && !box.querySelector("[tabindex='0']")) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  };
  const sizes = new ResizeObserver((seen) => seen.forEach((one) => letKeysScroll(one.target)));
  for (const picture of document.querySelectorAll(".bd-article img")) {
    const box = picture.closest("p, .output, figure, div");
    const look = () => {
      if (picture.naturalWidth > 800) picture.classList.add("wide");
      letKeysScroll(box);
    };
    box.classList.add("figure-box");
    picture.addEventListener("load", look);
    look();
  }
  const boxes = document.querySelectorAll(".bd-article .figure-box, .cell_output > .output");
  boxes.forEach((box) => sizes.observe(box));
});
