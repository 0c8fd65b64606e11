"""How things are drawn and written, without torch: palette, Plotly figures, panels, heat maps, words for numbers."""
