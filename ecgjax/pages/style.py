"""The style sheet of a page for wide screens, phones and paper."""

from __future__ import annotations

#: Contrasts are at least 7 : 1 (WCAG 2.2, level AAA).
STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: #1a1a22; font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue",
  "DejaVu Sans", Arial, sans-serif; }
main { max-width: 78rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 3vw, 2.5rem) 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 .75rem; padding-top: .5rem; border-top: 1px solid #d5d5dc;
  overflow-wrap: anywhere; }
p { max-width: 52rem; margin: .75rem 0; overflow-wrap: anywhere; }
a { color: #0b4a8f; }
.caution { max-width: none; margin: .5rem 0; padding: .6rem .9rem; border-left: .35rem solid #a3121f;
  background: #fdeeee; color: #6e0d16; font-weight: 600; }
nav { margin: 1.5rem 0; padding: .75rem 1rem; background: #f4f5f8; border-radius: .4rem; }
nav h2 { margin: 0; padding: 0; border: 0; font-size: 1rem; }
nav ol { margin: .4rem 0 0; padding-left: 1.6rem; columns: 16rem; }
nav li { padding: .15rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
.wide:has(> table) { margin: 1rem 0; }
p.caption { margin: 1.25rem 0 -.5rem; padding: 0 .6rem; font-size: .875rem; font-weight: 600; }
.columns { columns: 26rem; }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #dcdce2; }
thead th { vertical-align: bottom; border-bottom: 2px solid #55555f; }
tbody th { font-weight: 400; min-width: 7rem; }
td { max-width: 32rem; }
.number { text-align: right; }
.short { white-space: nowrap; }
pre { overflow-x: auto; padding: .75rem 1rem; background: #f4f5f8; border-radius: .4rem;
  font: .8125rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.25rem 2rem; align-items: flex-start; margin: 1rem 0; }
figure { margin: 0; max-width: 100%; min-width: 0; }
img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: .4rem; font-size: .875rem; line-height: 1.45; color: #3a3a44; overflow-wrap: anywhere; }
details { margin: 1rem 0; }
summary { cursor: pointer; padding: .4rem 0; font-weight: 600; }
:focus-visible { outline: 2px solid #0b4a8f; outline-offset: 2px; }
@media print {
  @page { margin: 14mm; }
  body { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  nav, figure, tr, .caution { break-inside: avoid; }
  h2, p.caption, thead { break-after: avoid; }
  .wide, pre { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  table { font-size: 7.5pt; }
  p.caption, figcaption { font-size: 8pt; }
  th, td { padding: .15rem .3rem; }
  .short { white-space: normal; }
  .columns { columns: 2; }
  tbody th { min-width: 0; }
  .pictures { gap: 5mm; }
  figure { max-width: 100%; }
  figure.half { max-width: calc(50% - 2.5mm); }
  img { min-width: 0 !important; max-height: 235mm; object-fit: contain; object-position: left top; }
  details::details-content { content-visibility: visible; display: block; }
}
"""
