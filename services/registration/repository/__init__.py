"""Every query of this service: the candidates themselves, news of their later stages, the desks' windows."""
