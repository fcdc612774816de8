"""Pictures drawn by code, to train on: text, screens, line art, pixel art."""
