"""Makes the data set: from folders of photographs to faulty and original pairs."""
