"""Tensors in, tensors out: no disk, no network, no terminal, no global random state.

Glossary, used with exactly these names throughout the core:

    symbol      shape        range      what it is (and its name in the papers)
    low         [B,3,h,w]    [-1,1]     the small image (DREAM: x_0, SR3: x, ResShift: y_0)
    x0          [B,3,H,W]    [-1,1]     the clean large image (DREAM: y_0, SR3: y_0, ResShift: x_0); H = scale*h
    y           [B,3,H,W]    ~[-1,1]    the enlarged small image: bicubic, or predicted by the refiner's encoder
    eps         [B,3,H,W]    N(0,1)     noise
    t           [B]          0..T       time, float64 on the CPU; 0 is the clean image, need not be whole
    x_t         [B,3,H,W]               the noisy image at t
    alpha_bar   scalar of t  1..0       the cumulative product of 1 - beta (Gaussian family)
    eta         scalar of t  0..1       the share of y in the mean (residual family)
    kappa       number       > 0        noise standard deviation where eta = 1 (residual family)
    level       [B]          0..1       noise level: sqrt(1 - alpha_bar), or sqrt(eta)
    lam         [B]          0..1       DREAM's blend of truth and estimate (lambda_t)
    x0_hat      [B,3,H,W]               the denoiser's estimate of x0; other *_hat likewise
"""
