"""The studio in the browser: pages that show and forward; the work is done in the other rooms."""
