"""All that touches disk or network: pictures, weights, training data, and which files a command line means."""
