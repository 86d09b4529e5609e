"""`grid`: facts and images of a grid, and exchange with other tools."""
