"""Makes the dataset: photos in, annotated and scored pictures and their faulty copies out."""
