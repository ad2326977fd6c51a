"""The tab's style: Gradio's own variables where it has them, colours of ours that hold WCAG AA in light and in dark.

Event marks are styled without an ancestor: inside an SVG `use` no selector sees one.
"""

from __future__ import annotations

CSS = """
#watchdog-tab,#watchdog-tip{--wd-fg:var(--body-text-color,#18181b);--wd-mut:#565e6b;
--wd-line:var(--border-color-primary,#e4e4e7);--wd-box:var(--background-fill-primary,#fff);--wd-soft:#ececf0;
--wd-ok:#15803d;--wd-act:#a14a08;--wd-bad:#b91c1c;--wd-info:#565e6b;
--wd-c0:#2563eb;--wd-c1:#7c3aed;--wd-c2:#c2410c;--wd-c3:#0f766e;--wd-c4:#be185d;--wd-c5:#4d7c0f}
.dark #watchdog-tab,.dark #watchdog-tip{--wd-mut:#a5adba;--wd-soft:#34373e;
--wd-ok:#4ade80;--wd-act:#fbbf24;--wd-bad:#f87171;--wd-info:#a5adba;
--wd-c0:#60a5fa;--wd-c1:#a78bfa;--wd-c2:#fb923c;--wd-c3:#2dd4bf;--wd-c4:#f472b6;--wd-c5:#a3e635}
#watchdog-tab .wd-hidden{display:none!important}
#watchdog-tab .pending{opacity:1!important}
#watchdog-tab .html-container,#watchdog-tab .prose{padding:0;max-width:none}
#watchdog-controls{align-items:flex-end}
#watchdog-controls .form{background:var(--block-background-fill,transparent)}
#watchdog-controls button{min-height:42px;transition:none!important}
#watchdog-stop:not(:disabled){background:#b91c1c!important;border-color:#b91c1c!important;color:#fff!important}
#watchdog-resume:not(:disabled){background:#1d4ed8!important;border-color:#1d4ed8!important;color:#fff!important}
#watchdog-tab.wd-stale .wd-card{filter:grayscale(1)}#watchdog-tab.wd-stale #watchdog-silent{filter:none}
#watchdog-auto-resume{display:flex;flex-direction:column;justify-content:flex-end}
#watchdog-plot-controls{justify-content:flex-end;align-items:center;gap:8px 20px}
#watchdog-plot-controls>*{flex:0 0 auto!important;min-width:0!important;width:auto;margin:0!important}
#watchdog-plot-controls .form{background:none;border:0;box-shadow:none;flex:0 0 auto!important;min-width:0!important}
#watchdog-tab:has(.wd-none) #watchdog-plot-controls{display:none}
#watchdog-plot-controls .block{border:0;box-shadow:none;background:none;padding:0}
#watchdog-log-scale label{font-size:13px;color:var(--wd-fg)}
#watchdog-tab .wd-joined{gap:0}
#watchdog-range .wrap{justify-content:flex-end;gap:6px}
#watchdog-range label{padding:3px 10px;font-size:13px;box-shadow:none;background:none;color:var(--wd-fg);
border:1px solid var(--wd-line)}
#watchdog-range input{border:1px solid var(--wd-mut)}
#watchdog-range label.selected{background:var(--wd-soft);border-color:var(--wd-fg)}
#watchdog-tab .wd,#watchdog-tab .wd *{box-sizing:border-box}
#watchdog-tab .wd{color:var(--wd-fg);font-size:15px;line-height:1.45;overflow-wrap:anywhere}
#watchdog-tab .wd-box{border:1px solid var(--wd-line);background:var(--wd-box);padding:14px 16px;
border-radius:var(--block-radius,0);margin:0}
#watchdog-tab .wd-card{border-left:5px solid var(--wd-info)}
#watchdog-silent{color:var(--wd-bad)!important;font-weight:700}
#watchdog-tab .wd-note{margin-bottom:12px}
#watchdog-tab .wd-tone-ok{border-left-color:var(--wd-ok)}#watchdog-tab .wd-tone-act{border-left-color:var(--wd-act)}
#watchdog-tab .wd-tone-bad{border-left-color:var(--wd-bad)}
#watchdog-tab .wd h2,#watchdog-tab .wd h3{margin:0;color:var(--wd-fg);font-weight:700;line-height:1.3}
#watchdog-tab .wd h2{font-size:21px}
#watchdog-tab .wd h3{font-size:15px;margin-bottom:8px;display:flex;justify-content:space-between;gap:4px 12px;
flex-wrap:wrap}
#watchdog-tab .wd h3 .wd-mut{font-weight:400}
#watchdog-tab .wd p{margin:8px 0 0;color:inherit}
#watchdog-tab .wd b{font-weight:700;color:inherit}
#watchdog-tab .wd time{color:inherit}
#watchdog-tab .wd-key{display:inline-block;width:12px;height:4px;margin:0 6px 3px 0}
#watchdog-tab .wd-key.wd-c0{background:var(--wd-c0)}#watchdog-tab .wd-key.wd-c1{background:var(--wd-c1)}
#watchdog-tab .wd-key.wd-c2{background:var(--wd-c2)}#watchdog-tab .wd-key.wd-c3{background:var(--wd-c3)}
#watchdog-tab .wd-key.wd-c4{background:var(--wd-c4)}#watchdog-tab .wd-key.wd-c5{background:var(--wd-c5)}
#watchdog-tab .wd .wd-ok{color:var(--wd-ok)}#watchdog-tab .wd .wd-act{color:var(--wd-act)}
#watchdog-tab .wd .wd-bad{color:var(--wd-bad)}#watchdog-tab .wd .wd-info{color:var(--wd-info)}
#watchdog-tab .wd .wd-mut,#watchdog-tab .wd .wd-empty{color:var(--wd-mut);font-size:13px}
#watchdog-tab .wd-unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
#watchdog-tab .wd-legend{display:flex;flex-wrap:wrap;gap:2px 16px;margin-top:10px}
#watchdog-tab .wd-key.wd-faint{opacity:.4}
#watchdog-tab .wd-key.wd-idle{height:0;background:none;border-top:2px dashed var(--wd-bad)}
#watchdog-tab .wd-key.wd-dashed{height:0;background:none;border-top:2px dashed var(--wd-c1)}
#watchdog-tab .wd-key.wd-tick{width:3px;height:12px;margin-bottom:-2px;background:currentColor}
#watchdog-tab .wd-top{display:flex;gap:4px 18px;align-items:center;flex-wrap:wrap}
#watchdog-tab .wd-pill{font-weight:700;white-space:nowrap}
#watchdog-tab .wd-pill::before{content:"";display:inline-block;width:10px;height:10px;border-radius:50%;
background:currentColor;margin-right:7px}
#watchdog-tab .wd-bar{height:16px;background:var(--wd-soft);margin:14px 0 6px;position:relative;display:flex}
#watchdog-tab .wd-bar i{display:block;height:100%;background:var(--wd-c0)}
#watchdog-tab .wd-bar .wd-before{opacity:.55}
#watchdog-tab .wd-bar em{position:absolute;top:-3px;bottom:-3px;width:2px;background:var(--wd-act)}
#watchdog-tab .wd-ends{display:flex;justify-content:space-between;gap:0 12px;flex-wrap:wrap;color:var(--wd-mut);
font-size:13px;font-variant-numeric:tabular-nums}
#watchdog-tab .wd-numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px 18px;
margin-top:12px}
#watchdog-tab .wd-numbers b{display:block;font-size:22px;line-height:1.25;font-variant-numeric:tabular-nums}
#watchdog-tab .wd-numbers span{color:var(--wd-mut);font-size:13px}
#watchdog-tab .wd-charts{display:grid;align-items:end;grid-template-columns:repeat(2,minmax(0,1fr));gap:14px 22px;
margin-top:8px}
@media(min-width:1240px){#watchdog-gpu .wd-charts{grid-template-columns:repeat(4,minmax(0,1fr))}}
@media(max-width:600px){#watchdog-tab .wd-charts{grid-template-columns:minmax(0,1fr)}}
#watchdog-tab .wd-figure{margin:0;display:grid;grid-template-columns:52px minmax(0,1fr);column-gap:6px}
#watchdog-tab .wd-figure figcaption{grid-column:1/3;display:flex;flex-wrap:wrap;justify-content:space-between;
gap:0 8px;font-size:13px;color:var(--wd-fg);margin-bottom:3px;text-align:left}
#watchdog-tab .wd-figure figcaption b,#watchdog-tab .wd-figure figcaption i{white-space:nowrap}
#watchdog-tab .wd-figure figcaption span{font-variant-numeric:tabular-nums}
#watchdog-tab .wd-figure figcaption i{font-style:normal}
#watchdog-tab .wd-axis{display:flex;flex-direction:column;justify-content:space-between;text-align:right}
#watchdog-tab .wd-axis i{font-style:normal;font-size:11px;line-height:1.1;color:var(--wd-mut);white-space:nowrap}
#watchdog-tab svg.wd-plot{width:100%;height:96px;display:block;cursor:crosshair;touch-action:pan-y;overflow:hidden}
#watchdog-tab .wd-defs{position:absolute}
#watchdog-tab .wd svg path{vector-effect:non-scaling-stroke;fill:none}
#watchdog-tab .wd-grid{stroke:var(--wd-line);stroke-width:1}
#watchdog-tab .wd-line{stroke-width:1.6;stroke-linejoin:round}#watchdog-tab .wd-line.wd-faint{opacity:.4}
#watchdog-tab .wd-line.wd-dashed{stroke-dasharray:5 4}
#watchdog-tab .wd-threshold{stroke:var(--wd-bad);stroke-dasharray:5 5;opacity:.75}
.wd-mark{fill:none;stroke:var(--wd-info);stroke-width:1.4;vector-effect:non-scaling-stroke}
.wd-mark.wd-ok{stroke:var(--wd-ok)}.wd-mark.wd-act{stroke:var(--wd-act)}.wd-mark.wd-bad{stroke:var(--wd-bad)}
#watchdog-tab .wd svg .wd-area{stroke:none;opacity:.13}
#watchdog-tab .wd-line.wd-c0{stroke:var(--wd-c0)}#watchdog-tab .wd svg .wd-area.wd-c0{fill:var(--wd-c0)}
#watchdog-tab .wd-line.wd-c1{stroke:var(--wd-c1)}#watchdog-tab .wd svg .wd-area.wd-c1{fill:var(--wd-c1)}
#watchdog-tab .wd-line.wd-c2{stroke:var(--wd-c2)}#watchdog-tab .wd svg .wd-area.wd-c2{fill:var(--wd-c2)}
#watchdog-tab .wd-line.wd-c3{stroke:var(--wd-c3)}#watchdog-tab .wd svg .wd-area.wd-c3{fill:var(--wd-c3)}
#watchdog-tab .wd-line.wd-c4{stroke:var(--wd-c4)}#watchdog-tab .wd svg .wd-area.wd-c4{fill:var(--wd-c4)}
#watchdog-tab .wd-line.wd-c5{stroke:var(--wd-c5)}#watchdog-tab .wd svg .wd-area.wd-c5{fill:var(--wd-c5)}
#watchdog-tab .wd-lines{list-style:none;margin:0;padding:0;max-height:420px;overflow-y:auto}
#watchdog-tab .wd-lines li{display:grid;grid-template-columns:minmax(48px,max-content) 10px minmax(0,1fr);gap:10px;
padding:7px 0;margin:0;border-top:1px solid var(--wd-line)}
#watchdog-tab .wd-lines li:first-child{border:0}
#watchdog-tab .wd-lines time{color:var(--wd-mut);font-variant-numeric:tabular-nums}
#watchdog-tab .wd-lines li>i{width:9px;height:9px;border-radius:50%;margin-top:7px;background:currentColor}
#watchdog-tab .wd details{margin-top:2px;font-size:13px}#watchdog-tab .wd summary{cursor:pointer;color:var(--wd-c0)}
#watchdog-tab .wd dl{margin:4px 0 0}#watchdog-tab .wd dt{color:var(--wd-mut);font-size:13px}
#watchdog-tab .wd dd{margin:0 0 4px;color:var(--wd-fg)}
#watchdog-tab .wd-host{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:6px 18px}
#watchdog-tab .wd-scroll{overflow-x:auto}
#watchdog-tab .wd table{border-collapse:collapse;width:100%;font-size:14px;margin:0;border:0}
#watchdog-tab .wd td,#watchdog-tab .wd th{text-align:left;padding:6px 8px;border:0;
border-top:1px solid var(--wd-line);
color:inherit;background:none;overflow-wrap:normal}
#watchdog-tab .wd td:last-child{position:sticky;right:0;background:var(--wd-box)}
#watchdog-tab .wd td.wd-n,#watchdog-tab .wd td time{white-space:nowrap}
#watchdog-tab .wd th{border:0;white-space:nowrap;color:var(--wd-mut);font-weight:600;font-size:13px}
#watchdog-tab .wd tr{background:none;border:0}#watchdog-tab .wd .wd-old{color:var(--wd-mut)}
#watchdog-tab .wd td.wd-n{text-align:right;font-variant-numeric:tabular-nums}
#watchdog-tab .wd-link{border:0;background:none;padding:2px;color:var(--wd-c0);font:inherit;cursor:pointer;
text-decoration:underline}
#watchdog-tab .wd-link.wd-quiet{color:var(--wd-mut)}
#watchdog-tab .wd-link:disabled{color:var(--wd-mut);cursor:not-allowed;text-decoration:none}
#watchdog-tab .wd-link.wd-sure{color:var(--wd-bad);font-weight:700}
#watchdog-tab .wd td .wd-link+.wd-link{margin-left:12px}
#watchdog-tab .wd-button{border:1px solid var(--wd-mut);border-radius:var(--button-small-radius,4px);
background:var(--wd-soft);color:var(--wd-fg);font:inherit;font-weight:600;padding:7px 14px;margin:2px 6px 2px 0;
cursor:pointer;text-align:left}
#watchdog-tab .wd-button:disabled{color:var(--wd-mut);cursor:not-allowed}
#watchdog-tab .wd summary h3{display:inline;margin:0}
#watchdog-tab .wd-box>details{margin:0;font-size:inherit}
#watchdog-tab .wd-box>details h3:not(summary h3){margin-top:18px}
#watchdog-tab .wd-settings{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));
gap:14px 26px;margin-top:12px}
#watchdog-tab .wd-settings>div{display:grid;grid-template-columns:1fr auto;gap:2px 10px;align-content:start}
#watchdog-tab .wd-settings label b{font-size:14px;overflow-wrap:normal}
#watchdog-tab .wd-settings .wd-mut{grid-column:1/3}
#watchdog-tab .wd-settings input,#watchdog-tab .wd-settings select{width:84px;padding:4px 8px;font:inherit;
color:var(--wd-fg);background:var(--wd-box);border:1px solid var(--wd-mut);border-radius:4px;margin-right:4px}
#watchdog-tab .wd-alerts{display:flex;flex-wrap:wrap;gap:6px 20px;align-items:center}
#watchdog-tab .wd-alerts label{display:inline-flex;gap:7px;align-items:center;color:var(--wd-fg)}
#watchdog-tab .wd-log-now{border-top:0!important;padding:6px 16px 12px!important}
#watchdog-tab .wd-log-now pre{margin:0;padding:6px 10px;background:var(--background-fill-secondary,var(--wd-soft));
border:0;color:var(--wd-fg);font:12px/1.5 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
#watchdog-tab .wd-joined:has(.wd-log-now) #watchdog-log .wd-box{border-bottom:0;padding-bottom:0;
border-bottom-left-radius:0;border-bottom-right-radius:0}
#watchdog-tab .wd-log-now{border-top-left-radius:0!important;border-top-right-radius:0!important}
#watchdog-tab .wd-log{display:flex;flex-direction:column-reverse;max-height:320px;overflow:auto;
background:var(--background-fill-secondary,var(--wd-soft));padding:8px 10px}
#watchdog-tab .wd-log pre{margin:0;padding:0;background:none;border:0;color:var(--wd-fg);
font:12px/1.5 ui-monospace,monospace;
white-space:pre-wrap;overflow-wrap:anywhere}
#watchdog-tab :focus-visible{outline:2px solid var(--wd-c0);outline-offset:2px}
#watchdog-tip i{position:fixed;width:1px;background:var(--wd-mut);pointer-events:none;z-index:1001}
#watchdog-tip div{position:fixed;z-index:1002;pointer-events:none;white-space:pre-wrap;max-width:min(300px,80vw);
padding:5px 8px;font-size:12px;line-height:1.4;color:var(--wd-fg);background:var(--wd-box);
border:1px solid var(--wd-line);
font-variant-numeric:tabular-nums}
@media(max-width:640px){#watchdog-plot-controls{flex-wrap:wrap;justify-content:flex-start}
#watchdog-range .wrap{justify-content:flex-start;flex-wrap:nowrap}#watchdog-range .wrap{gap:3px}
#watchdog-range label{padding:3px 5px}
#watchdog-tab .wd thead{display:none}#watchdog-tab .wd tbody,#watchdog-tab .wd table{display:block}
#watchdog-tab .wd tr{display:flex;flex-wrap:wrap;gap:1px 12px;padding:7px 0;border-top:1px solid var(--wd-line)}
#watchdog-tab .wd td{border:0;padding:0}#watchdog-tab .wd td:first-child{font-weight:600}
#watchdog-tab .wd td:nth-child(2)::before{content:"step "}#watchdog-tab .wd td:nth-child(5)::before{content:"sound: "}
#watchdog-tab .wd td:last-child{position:static}#watchdog-tab .wd td:empty{display:none}
#watchdog-controls .form{flex-wrap:wrap}
#watchdog-controls .form>*{flex:1 1 100%!important;min-width:0!important}
#watchdog-tab .wd-ends span:nth-child(2):not(:last-child){order:1;flex-basis:100%}
#watchdog-tab .wd-box{padding:12px}#watchdog-tab .wd-numbers b{font-size:19px}
#watchdog-tab .wd-numbers{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media(prefers-reduced-motion:reduce){#watchdog-tab *{transition:none!important;animation:none!important}}
"""
