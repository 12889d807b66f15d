"""The look of the preview page: its palette and its style sheet, light and dark, screen and print.

The hues are those of Okabe and Ito and of Tol, chosen to stay apart for colour-blind readers;
neighbours in the list differ in lightness too.
"""

# Fill and the ink that is legible on it.
PALETTE = (
    ("#0072b2", "#fff"),  # blue
    ("#e69f00", "#1c1400"),  # orange
    ("#009e73", "#001a12"),  # green
    ("#dd8fbb", "#2a0d1d"),  # pink
    ("#56b4e9", "#06202f"),  # sky
    ("#b84a00", "#fff"),  # vermilion
    ("#ddcc77", "#262005"),  # sand
    ("#882255", "#fff"),  # wine
    ("#6a5acd", "#fff"),  # indigo
    ("#999933", "#1a1a00"),  # olive
)

STYLE = """
:root { color-scheme:light dark; --page:#fff; --ink:#1b222c; --soft:#5f6977; --faint:#6c7683;
  --line:#e2e6eb; --lane:#f1f3f6; --background:#d9dde3; --on-background:#4b5563; --bar:#8b96a5;
  --mark:#d81b60; --on-mark:#fff }
@media (prefers-color-scheme:dark) {
  :root { --page:#14171c; --ink:#e8ebef; --soft:#a1abb8; --faint:#8b95a2; --line:#2a3038;
    --lane:#1d2228; --background:#343b45; --on-background:#b6bfca; --bar:#6b7684 }
}
* { box-sizing:border-box }
html { -webkit-text-size-adjust:100%; text-size-adjust:100%; scroll-behavior:smooth }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 Inter,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
  font-variant-numeric:tabular-nums; overflow-wrap:anywhere }
main { max-width:1408px; margin:0 auto; padding:44px 32px 72px }
h1 { font-size:30px; line-height:1.15; margin:0 0 4px; letter-spacing:-.018em; font-weight:680 }
h2 { font-size:20px; line-height:1.25; margin:0; letter-spacing:-.01em; font-weight:650 }
h3 { font-size:13px; margin:0 0 10px; font-weight:600; color:var(--soft) }
p { margin:0 }
a { color:inherit; text-decoration-color:var(--faint); text-underline-offset:3px }
code { font:12px/1.5 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;
  color:var(--faint) }
.lead { color:var(--soft) }
.tiles { display:flex; flex-wrap:wrap; gap:20px 44px; margin:26px 0 30px }
.tiles dt { color:var(--soft); font-size:13px }
.tiles dd { margin:0; font-size:24px; line-height:1.25; font-weight:650; letter-spacing:-.01em }
.tiles > div { display:flex; flex-direction:column-reverse; justify-content:flex-end }
.tables { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));
  gap:28px 56px; padding:24px 0 26px; border-top:1px solid var(--line) }
.bars { display:grid; grid-template-columns:minmax(0,max-content) minmax(60px,1fr) max-content;
  gap:5px 12px; align-items:center; font-size:13.5px; line-height:1.35; margin:0; padding:0;
  list-style:none }
.bars li { display:contents }
.columns { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,270px),1fr));
  gap:5px 36px; align-items:start }
.columns .bars { grid-template-columns:minmax(0,12.5em) minmax(40px,1fr) 3.4em }
.track { background:var(--lane); border-radius:3px; height:12px; overflow:hidden }
.track i { display:block; height:100%; min-width:1px; border-radius:3px }
.track .rest { background:var(--bar) }
.value { color:var(--soft); text-align:right }
.note { color:var(--soft); font-size:13px; margin-top:10px }
.digests { display:flex; flex-wrap:wrap; gap:2px 22px; padding-top:12px;
  border-top:1px solid var(--line) }
.how { color:var(--soft); max-width:78ch; margin-top:26px }
section { margin-top:52px; scroll-margin-top:24px }
section > header { border-bottom:1px solid var(--line); padding-bottom:12px }
section > header p { color:var(--soft); margin-top:2px }
h2 small { font-size:14px; font-weight:400; color:var(--soft); margin-left:8px; letter-spacing:0 }
.sample { margin:24px 0 40px }
.says { display:flex; justify-content:space-between; gap:24px; align-items:baseline }
.says p { max-width:92ch; text-wrap:pretty }
.says ol { margin:0; padding-left:1.3em; max-width:92ch }
.pair { border-left:3px solid var(--line); padding-left:17px }
.view + .view { margin-top:22px }
.bars + h3 { margin-top:26px }
.clips { display:flex; flex-wrap:wrap; gap:2px 28px; margin:3px 0 11px; padding:0; list-style:none;
  font-size:13px; color:var(--faint) }
.clips b { font-weight:600; color:var(--ink) }
.clips i, .bars i.dot { display:inline-block; width:10px; height:10px; border-radius:3px;
  margin-right:7px }
.clips .region { background:var(--mark) } .clips .rest { background:var(--background) }
.scroll { overflow-x:auto; overscroll-behavior-x:contain }
.scroll:focus-visible { outline:2px solid #0072b2; outline-offset:4px; border-radius:2px }
.reel { width:100%; max-width:calc(var(--n) * var(--cell) * 1px);
  min-width:min(calc(var(--n) * 56px),calc(var(--n) * var(--cell) * 1px)) }
.strip, .numbers { display:grid; grid-template-columns:repeat(var(--n),minmax(0,1fr)) }
.strip img { display:block; width:calc(100% - 2px); height:auto; margin:0 1px; border-radius:2px }
.film, .under { position:relative }
.flagged { padding-top:23px } .framed { padding:4px 0 }
.film .gap { position:absolute; inset:0 auto; width:8px; margin-left:-4px; background:var(--page) }
.film .region { position:absolute; inset:0 auto; border:4px solid var(--mark);
  border-radius:5px }
.mark { position:absolute; inset:0 auto -5px; width:3px; margin-left:-1.5px; background:var(--mark);
  box-shadow:0 0 0 1.5px var(--page); z-index:1 }
.under > .mark { inset:0 auto }
.flag { position:absolute; top:0; left:0; padding:0 7px; font-size:12px; line-height:19px;
  font-weight:600; font-style:normal; white-space:nowrap; background:var(--mark);
  color:var(--on-mark); border-radius:0 3px 3px 0 }
.flag.left { left:auto; right:0; border-radius:3px 0 0 3px }
.parts { position:relative; height:23px; margin-top:5px }
.parts span { position:absolute; inset:0 auto; padding:0 1px; text-align:center }
.parts b { display:block; height:100%; padding:0 4px; overflow:hidden; white-space:nowrap;
  text-overflow:ellipsis; font-size:12.5px; line-height:23px; font-weight:500; border-radius:3px;
  background:var(--background); color:var(--on-background) }
.parts .region b { background:var(--mark); color:var(--on-mark); font-weight:600 }
.lanes { position:relative; margin:7px 1px 0 }
.lane { position:relative; padding-top:17px; margin-bottom:5px }
.lane bdi { position:absolute; top:0; max-width:100%; font-size:12.5px; line-height:17px;
  font-weight:600; white-space:nowrap; overflow:hidden; text-overflow:ellipsis }
.lane svg { display:block; width:100%; height:10px; border-radius:3px; background:var(--lane) }
.chart { position:relative; height:68px; margin:5px 1px 0; border-radius:3px; overflow:hidden;
  background:var(--background) }
.chart svg { position:absolute; inset:0; width:100%; height:100%; display:block }
.chart .rule { stroke:var(--page); stroke-width:2; vector-effect:non-scaling-stroke; opacity:.3 }
.chart .edge { stroke:var(--page); stroke-width:1.5; fill:none;
  vector-effect:non-scaling-stroke }
.chart .dot { stroke:var(--page); stroke-width:5; stroke-linecap:round; fill:none;
  vector-effect:non-scaling-stroke }
.names span { position:absolute; z-index:2; transform:translateY(-50%); text-align:center;
  font-size:12.5px; line-height:1.2; font-weight:600; white-space:nowrap }
.names bdi { display:inline-block; max-width:100%; padding:0 6px; overflow:hidden;
  text-overflow:ellipsis; vertical-align:top }
.names .rest { background:var(--background); color:var(--on-background); font-weight:500 }
.frames { position:absolute; inset:0; display:grid;
  grid-template-columns:repeat(var(--t),minmax(0,1fr)) }
.numbers { margin-top:3px; font-size:11.5px; line-height:1.4; color:var(--faint);
  text-align:center }
@media (max-width:640px) {
  main { padding:28px 18px 48px }
  h1 { font-size:25px }
  .tiles { gap:16px 30px } .tiles dd { font-size:20px }
  .says { display:block } .says code { display:block; margin-top:2px }
  .scroll { margin:0 -18px; padding:0 18px }
  .pair { padding-left:12px } .parts b { padding:0; font-size:11px }
}
@media print {
  :root { color-scheme:light; --page:#fff; --ink:#000; --soft:#444; --faint:#666; --line:#ccc;
    --lane:#eee; --background:#d9dde3; --on-background:#444; --bar:#8b96a5 }
  * { print-color-adjust:exact; -webkit-print-color-adjust:exact }
  body { font-size:11px } main { padding:0; max-width:none } h1 { font-size:22px }
  h2 { font-size:15px } h2 small, .tiles dt, .bars, .clips, .note, h3 { font-size:10px }
  code { font-size:9px } .tiles { margin:16px 0 18px; gap:8px 30px } .tiles dd { font-size:16px }
  section { margin-top:26px } .sample { margin:14px 0 20px } .how { margin-top:14px }
  .sample, .tables, section > header { break-inside:avoid }
  section > header { break-after:avoid }
  .reel { min-width:0 } .scroll { overflow:visible } .chart { height:44px }
  .numbers, .names span, .parts b, .flag, .lane bdi { font-size:8px }
}
""".strip()


def palette_css() -> str:
    """Return the rules of the classes `c0`, `c1`, ...: a fill in HTML and SVG, and its ink."""
    return "\n".join(
        f".c{i} {{ background:{fill}; fill:{fill}; color:{ink} }}"
        for i, (fill, ink) in enumerate(PALETTE)
    )
