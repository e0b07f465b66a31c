"""The HTML report: one file that needs no other and asks nothing of the network.

`page.py` says what stands in it and in which order, the other files make its sections; each part is a macro of
`templates/parts.html`, which escapes what it is handed. Style and script are `page.css` and `page.js`.
"""
