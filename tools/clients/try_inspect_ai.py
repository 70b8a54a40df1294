"""Tries inspect-ai: a task whose targets are the texts of OpenAI's own client is solved in full."""

import tempfile

import openai
from common import PROMPTS, SAMPLED, SEED, TEMPERATURE, TOKENS, equal, fail, target
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import exact
from inspect_ai.solver import generate

t = target()
own = openai.OpenAI(base_url=t.v1, api_key=t.key, max_retries=0)
samples = []
for prompt in PROMPTS:
    answer = own.chat.completions.create(
        model=t.model, messages=[{"role": "user", "content": prompt}], **SAMPLED)
    samples.append(Sample(input=prompt, target=answer.choices[0].message.content))
samples.append(Sample(input=PROMPTS[0], target="something else"))  # a score that can be 0

model = get_model(f"openai-api/kernelyard/{t.model}", base_url=t.v1, api_key=t.key,
                  config=GenerateConfig(max_tokens=TOKENS, temperature=TEMPERATURE, seed=SEED))
with tempfile.TemporaryDirectory() as folder:
    (log,) = eval(Task(dataset=samples, solver=[generate()], scorer=exact()), model=model,
                  log_dir=folder, display="none")
    if log.status != "success":
        fail(f"the evaluation ended as {log.status}: {log.error and log.error.message}")
    for sample in log.samples[:len(PROMPTS)]:
        equal("text", sample.output.completion, sample.target)
    equal("mean score", log.results.scores[0].metrics["mean"].value, len(PROMPTS) / len(samples))
print(f"a task of {len(samples)} samples: the texts equal the openai client's, and "
      "the mean score is what it must be")
