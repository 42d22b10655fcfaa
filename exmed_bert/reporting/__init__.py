"""What all reports share: their content, the HTML page and the Markdown made of it, and the style of plots."""
