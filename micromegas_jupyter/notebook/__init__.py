"""The IPython extension: magics, the identity widget, results and completion. Nothing heavy loads before it is used."""
