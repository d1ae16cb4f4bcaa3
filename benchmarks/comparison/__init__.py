"""The comparison of saliency methods: what is explained, by whom, how it is judged, and what is kept."""
