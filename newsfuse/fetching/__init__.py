"""Archives of public data sets: fetched over a bad line, verified, unpacked within limits, laid out as a data set."""
