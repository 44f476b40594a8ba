"""The Triton model repository, which travels in the wheel. Triton itself reads only its folders."""
