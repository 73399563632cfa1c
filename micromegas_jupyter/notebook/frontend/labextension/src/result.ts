// A query's result is a widget while its kernel lives. Without a kernel, JupyterLab alone shows "Loading widget…" for
// ever. Here the table that the notebook holds as HTML is shown until the widget is in the page.

import { OutputArea } from "@jupyterlab/outputarea";
import type { IRenderMime, IRenderMimeRegistry } from "@jupyterlab/rendermime";
import type { Message } from "@lumino/messaging";
import { Panel, type Widget } from "@lumino/widgets";

/** Marks an output that has a widget and the same table as HTML. */
const RESULT = "application/vnd.micromegas.result+json";
const WIDGET = "application/vnd.jupyter.widget-view+json";
const HTML = "text/html";
const GRID = ".micromegas-grid";
/** Before widgets, whose rank is -10. */
const RANK = -20;

export function addResultRenderer(renderers: IRenderMimeRegistry): void {
  const html = renderers.getFactory(HTML);
  if (!html) return;
  const createRenderer = (options: IRenderMime.IRendererOptions): ResultRenderer =>
    new ResultRenderer(html.createRenderer({ ...options, mimeType: HTML }));
  // Safe, since what is not trusted is sanitized by the renderer of HTML and gets no widget.
  renderers.addFactory({ safe: true, mimeTypes: [RESULT], createRenderer }, RANK);
}

class ResultRenderer extends Panel implements IRenderMime.IRenderer {
  private live: IRenderMime.IRenderer | undefined;
  private waiting: IRenderMime.IMimeModel | undefined;
  private readonly watch = new MutationObserver(() => this.choose());

  constructor(private readonly saved: IRenderMime.IRenderer) {
    super();
    this.addWidget(saved);
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    await this.saved.renderModel(model);
    this.waiting = model.trusted && WIDGET in model.data ? model : undefined;
    if (this.isAttached) this.renderLive();
  }

  override dispose(): void {
    this.watch.disconnect();
    super.dispose();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.renderLive();
  }

  private renderLive(): void {
    const model = this.waiting;
    const renderers = outputArea(this)?.rendermime;
    if (!model || !renderers?.mimeTypes.includes(WIDGET)) return;
    this.waiting = undefined;
    if (!this.live) {
      this.live = renderers.createRenderer(WIDGET);
      this.live.hide();
      this.addWidget(this.live);
      this.watch.observe(this.live.node, { childList: true, subtree: true });
    }
    void this.live.renderModel(model);
  }

  private choose(): void {
    const isLive = this.live?.node.querySelector(GRID) != null;
    this.live?.setHidden(!isLive);
    this.saved.setHidden(isLive);
  }
}

/** Only the output area has the renderers of its own notebook or console, whose widgets are connected to the kernel. */
function outputArea(widget: Widget): OutputArea | undefined {
  for (let parent = widget.parent; parent; parent = parent.parent) {
    if (parent instanceof OutputArea) return parent;
  }
  return undefined;
}
