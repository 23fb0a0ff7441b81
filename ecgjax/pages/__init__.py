"""Pages of tables and figures, written as one self-contained HTML file and as Markdown."""
