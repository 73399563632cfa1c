// Results, tables and the sign-in card are widgets while their kernel lives. Without it, JupyterLab shows an error
// or "Loading widget…" for ever. Here what the notebook holds as HTML is shown until the widget is in the page.

import type { INotebookTracker } from "@jupyterlab/notebook";
import { OutputArea } from "@jupyterlab/outputarea";
import type { IRenderMime, IRenderMimeRegistry } from "@jupyterlab/rendermime";
import type { Message } from "@lumino/messaging";
import { Panel, type Widget } from "@lumino/widgets";

/** Marks an output that has a widget and the same as HTML. */
const SAVED = "application/vnd.micromegas.result+json";
const WIDGET = "application/vnd.jupyter.widget-view+json";
const HTML = "text/html";
/** The root element of a widget in the page. */
const LIVE = '[class^="micromegas-"]';
/** ipywidgets' mark on a renderer that shows an error. */
const GIVEN_UP = "jupyter-widgets";
/** Before widgets, whose rank is -10. */
const RANK = -20;

/** Resolves once widgets of these renderers can find their kernel, to false if they never will. */
type Connect = (renderers: IRenderMimeRegistry) => Promise<boolean>;

export function addSavedRenderer(common: IRenderMimeRegistry, notebooks: INotebookTracker): void {
  const html = common.getFactory(HTML);
  if (!html) return;
  // When its kernel is known, a notebook gets a renderer of widgets of its own from ipywidgets. What is rendered with
  // the common one before stays without a kernel, because ipywidgets does not look for it here.
  const isConnected = (renderers: IRenderMimeRegistry): boolean =>
    renderers.mimeTypes.includes(WIDGET) && renderers.getFactory(WIDGET) !== common.getFactory(WIDGET);
  const connect = async (renderers: IRenderMimeRegistry): Promise<boolean> => {
    if (isConnected(renderers)) return true;
    await notebooks.find((panel) => panel.content.rendermime === renderers)?.sessionContext.ready;
    await new Promise((resolve) => setTimeout(resolve)); // ipywidgets has waited for the same
    return isConnected(renderers);
  };
  const createRenderer = (options: IRenderMime.IRendererOptions): SavedRenderer =>
    new SavedRenderer(html.createRenderer({ ...options, mimeType: HTML }), connect);
  // Safe, since what is not trusted is sanitized by the renderer of HTML and gets no widget.
  common.addFactory({ safe: true, mimeTypes: [SAVED], createRenderer }, RANK);
}

class SavedRenderer extends Panel implements IRenderMime.IRenderer {
  private live: IRenderMime.IRenderer | undefined;
  private waiting: IRenderMime.IMimeModel | undefined;
  private widget = "";
  private readonly watch = new MutationObserver(() => this.choose());

  constructor(
    private readonly saved: IRenderMime.IRenderer,
    private readonly connect: Connect,
  ) {
    super();
    this.addWidget(saved);
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    await this.saved.renderModel(model);
    const widget = JSON.stringify(model.data[WIDGET] ?? "");
    // The same widget stays as it is: only what is saved has changed.
    if (widget === this.widget && this.isLive) return;
    this.widget = widget;
    this.waiting = model.trusted && WIDGET in model.data ? model : undefined;
    if (this.isAttached) await this.renderLive();
  }

  override dispose(): void {
    this.watch.disconnect();
    this.saved.dispose();
    super.dispose();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    void this.renderLive();
  }

  private async renderLive(): Promise<void> {
    const model = this.waiting;
    const renderers = outputArea(this)?.rendermime;
    if (!model || !renderers) return;
    if (!(await this.connect(renderers)) || this.isDisposed || this.waiting !== model) return;
    this.waiting = undefined;
    if (!this.live) {
      this.live = renderers.createRenderer(WIDGET);
      this.live.hide();
      this.addWidget(this.live);
      this.watch.observe(this.live.node, { childList: true, subtree: true });
    }
    const live = this.live;
    await live.renderModel(model);
    // ipywidgets (8.1) looks for two seconds, and misses a widget that comes in the last tenth of a second.
    if (!live.isDisposed && live.hasClass(GIVEN_UP) && !this.isLive) await live.renderModel(model);
  }

  private get isLive(): boolean {
    return this.live?.node.querySelector(LIVE) != null;
  }

  private choose(): void {
    this.live?.setHidden(!this.isLive);
    if (this.isLive) this.saved.parent = null;
    else this.insertWidget(0, this.saved);
  }
}

/** Only the output area has the renderers of its own notebook or console, whose widgets are connected to the kernel. */
function outputArea(widget: Widget): OutputArea | undefined {
  for (let parent = widget.parent; parent; parent = parent.parent) {
    if (parent instanceof OutputArea) return parent;
  }
  return undefined;
}
