// What is wrong with the page as it is drawn: what stands out of it, and what cannot be read before what is behind it.
(() => {
  const wrong = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) wrong.push(`the page is ${document.documentElement.scrollWidth} wide, not ${width}`);
  const parts = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const opaque = (colour) => colour !== "transparent" && (parts(colour).length < 4 || parts(colour)[3] > 0);
  // WCAG 2.2, relative luminance and contrast ratio.
  const luminance = (colour) => {
    const [red, green, blue] = parts(colour).slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (opaque(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let texts = 0;
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    const drawing = element instanceof SVGElement;
    if (!drawing && !element.closest(".scroll") && (box.right > width + 0.5 || box.left < -0.5))
      wrong.push(`<${element.tagName}> reaches from ${box.left} to ${box.right} of ${width}: ${element.textContent.slice(0, 60)}`);
    if (!drawing && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0 && !element.matches(".scroll, .scroll *") && getComputedStyle(element).display !== "inline")
      wrong.push(`<${element.tagName}> holds more than it shows: ${element.textContent.slice(0, 60)}`);
    const style = getComputedStyle(element);
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (own) {
      texts += 1;
      const height = drawing ? box.height : parseFloat(style.fontSize);
      if (height < 11) wrong.push(`text ${height} px high: ${element.textContent.slice(0, 60)}`);
      const colour = drawing ? style.fill : style.color;
      const ratio = contrast(colour, behind(element));
      if (ratio < 4.5) wrong.push(`contrast ${ratio.toFixed(2)} of ${colour} on ${behind(element)}: ${element.textContent.slice(0, 60)}`);
    }
    if (element.matches("rect.bar, rect.fill")) {
      const ratio = contrast(style.fill, behind(element));
      if (ratio < 3) wrong.push(`contrast ${ratio.toFixed(2)} of a column`);
    }
  }
  return { wrong: [...new Set(wrong)].slice(0, 10), texts, styled: getComputedStyle(document.body).maxWidth, paper: behind(document.body) };
})()
