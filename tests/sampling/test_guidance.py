import torch

from afterglow.sampling.guidance import CFGOutputs, classifier_free_guidance, delta_norm, guidance_delta, predict_both


def test_classifier_free_guidance_uses_requested_or_given_scale():
    uncond, cond = torch.randn(2, 3, 1, 4, 4)
    outputs = CFGOutputs(0, 999, uncond, uncond, cond, 3.0)
    torch.testing.assert_close(classifier_free_guidance(outputs), uncond + 3 * (cond - uncond))
    torch.testing.assert_close(classifier_free_guidance(outputs, -2.0), uncond - 2 * (cond - uncond))
    torch.testing.assert_close(classifier_free_guidance(outputs, 0.0), uncond)
    assert classifier_free_guidance(outputs, 1.0) is cond
    assert classifier_free_guidance(CFGOutputs(0, 999, uncond, cond, cond, 3.0)) is cond  # without text


@torch.no_grad()
def test_predict_both_equals_two_separate_calls(small_captioned, small_plain):
    model, noisy = small_captioned(), torch.randn(2, 3, 8, 8)
    captions = model.condition(["", "", "a dog", "two red circles"])
    uncond, cond = predict_both(model, captions, noisy, torch.tensor(300))
    times = torch.tensor([300, 300])
    torch.testing.assert_close(uncond, model(noisy, times, captions[:2]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cond, model(noisy, times, captions[2:]), rtol=1e-4, atol=1e-5)
    first, second = predict_both(small_plain(), None, noisy, torch.tensor(300))
    assert first is second


@torch.no_grad()
def test_guidance_delta_of_velocities_is_in_units_of_the_noise(small_captioned):
    model = small_captioned(noise_scheduler={"prediction_type": "v_prediction"})
    noisy, uncond, cond = (torch.randn(2, 3, 8, 8) for _ in range(3))
    delta = guidance_delta(model, uncond, cond, noisy, 300)
    torch.testing.assert_close(delta, model.scheduler.alphas_cumprod[300].sqrt() * (cond - uncond), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(guidance_delta(model, uncond, cond, noisy, torch.tensor([300, 300])), delta)
    torch.testing.assert_close(delta_norm(delta), delta.square().sum((1, 2, 3)).sqrt())


@torch.no_grad()
def test_guidance_delta_in_half_precision_keeps_a_small_difference(small_captioned):
    model = small_captioned(noise_scheduler={"prediction_type": "v_prediction"})
    noisy, uncond = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8).half()
    cond = (uncond + 0.003).half()
    exact = model.scheduler.alphas_cumprod[950].sqrt() * (cond.double() - uncond.double())
    torch.testing.assert_close(guidance_delta(model, uncond, cond, noisy.half(), 950).double(), exact, rtol=1e-3, atol=0)


@torch.no_grad()
def test_guidance_delta_of_a_flow_is_the_difference_of_its_outputs(small_captioned):
    model = small_captioned(noise_scheduler={"prediction_type": "flow_prediction"})
    noisy, uncond, cond = (torch.randn(2, 3, 8, 8) for _ in range(3))
    first = guidance_delta(model, uncond, cond, noisy, len(model.scheduler))  # where the signal has no part in x_t
    torch.testing.assert_close(first, cond - uncond)
    eps = model.to_noise(cond, noisy, 400) - model.to_noise(uncond, noisy, 400)
    torch.testing.assert_close(
        guidance_delta(model, uncond, cond, noisy, 400) * (1 - 400 / len(model.scheduler)), eps, rtol=1e-4, atol=1e-5
    )
