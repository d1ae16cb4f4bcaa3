"""How good a mask is: deletion and insertion, localisation, and the columns of the result."""
