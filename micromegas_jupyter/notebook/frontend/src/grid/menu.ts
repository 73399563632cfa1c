// A menu at the pointer or at the cell with the focus. Keys follow the WAI-ARIA Authoring Practices for menus.

import { make, makeButton } from "../dom";

/** Open a menu inside `root`; `onClose` returns the focus. */
export function openMenu(
  root: HTMLElement,
  { clientX, clientY, target }: MouseEvent,
  items: [string, () => void][],
  onClose: () => void,
): void {
  const buttons = items.map(([label, action]) =>
    makeButton(
      label,
      () => {
        close();
        action();
      },
      { role: "menuitem", tabindex: -1 },
    ),
  );
  const menu = make("div", { class: "micromegas-grid-menu", role: "menu", "aria-label": "Actions" }, ...buttons);
  const close = (): void => {
    menu.remove();
    document.removeEventListener("pointerdown", closeOutside, true);
    onClose();
  };
  const closeOutside = (event: Event): void => {
    if (!event.composedPath().includes(menu)) close();
  };
  menu.addEventListener("keydown", (event) => {
    const at = buttons.findIndex((button) => button.matches(":focus"));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Escape" || event.key === "Tab") close();
    else if (to === undefined) return;
    else buttons.at(to % buttons.length)?.focus();
    event.preventDefault();
    event.stopPropagation();
  });
  menu.addEventListener("contextmenu", (event) => event.preventDefault());
  root.append(menu);
  const frame = root.getBoundingClientRect();
  // The menu key has no pointer position.
  const cell = (target as Element).getBoundingClientRect();
  const [x, y] = clientX || clientY ? [clientX, clientY] : [cell.left + 8, cell.bottom];
  menu.style.left = `${Math.max(Math.min(x - frame.left, frame.width - menu.offsetWidth - 4), 0)}px`;
  menu.style.top = `${y - frame.top}px`;
  document.addEventListener("pointerdown", closeOutside, true);
  buttons[0]?.focus({ preventScroll: true });
}
