"""The programs, by area; each is a function `name(ray)` that returns plain data, the same on Ray and on miniray."""
