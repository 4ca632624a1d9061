"""Demo models: three small fine-tunes of one base, trained on text this project generates."""
