"""What Pillow does wrongly or does not tell: kinds, pages and planes of TIFFs, damage, what C libraries print."""
