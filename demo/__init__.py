"""Demo models: three small fine-tunes of one base, made by this project from text it generates itself."""
