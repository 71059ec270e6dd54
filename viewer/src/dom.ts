// Elements, made in one call. Text is always text, never markup.

type Value = string | number | boolean | null | ((event: never) => void);

/** An element with these attributes (`on...` are listeners, false and null are left out) and these children. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, Value> = {},
  ...children: (Node | string | null)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value as EventListener);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag: string, attributes: Record<string, string | number> = {}): SVGElement {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}

/** The JSON that a page holds in the element of this id. */
export function given<T>(id: string): T {
  return JSON.parse(document.getElementById(id)!.textContent!) as T;
}

export async function loaded(source: string): Promise<HTMLImageElement> {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

/** A labelled slider from 0 to 100 % that says its value. */
export function slider(name: string, says: string, value: number, changed: (share: number) => void): HTMLElement {
  const shown = el("output", {}, `${Math.round(100 * value)} %`);
  const input = el("input", {
    type: "range",
    min: 0,
    max: 100,
    step: 5,
    value: Math.round(100 * value),
    name,
    oninput: () => {
      shown.textContent = `${input.value} %`;
      changed(Number(input.value) / 100);
    },
  });
  return el("label", { class: "slider" }, says, " ", input, shown);
}

/** Keys and what they do, in a dialog that `?` opens. */
export function help(
  title: string,
  keys: readonly [string, string][],
): { button: HTMLElement; dialog: HTMLDialogElement } {
  const rows = keys.flatMap(([key, does]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, does)]);
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = el("dialog", { "aria-label": title }, el("h2", {}, title), el("dl", {}, ...rows), close);
  const open = () => dialog.open || dialog.showModal();
  document.addEventListener("keydown", (event) => {
    if (event.key === "?" && !isText(event.target)) open();
  });
  const button = el("button", { type: "button", onclick: open, "aria-haspopup": "dialog" }, "? Keys");
  return { button, dialog };
}

/** Whether keys go into a field. */
export function isText(target: EventTarget | null): boolean {
  return target instanceof HTMLInputElement && !["range", "checkbox", "radio"].includes(target.type);
}
