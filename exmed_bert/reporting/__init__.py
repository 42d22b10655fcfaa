"""What all reports share: the HTML page and the style of plots."""
