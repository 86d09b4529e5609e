"""`grid`: facts and pictures of a grid, and exchange with other tools."""
