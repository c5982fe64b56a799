// Vercel's ai with its OpenAI-compatible provider: text, stream, an object by schema, tools, and both together.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "chatglm", baseURL: `${process.argv[2]}/v1`, apiKey: "none", supportsStructuredOutputs: true,
});
const model = provider("demo");
const common = { model, maxRetries: 0, maxOutputTokens: 200 };
const found = {};
found.text = (await generateText({ ...common, prompt: "你好" })).text;
const streamed = streamText({ ...common, prompt: "你好", providerOptions: { chatglm: { reasoningEffort: "low" } } });
found.streamed = "";
for await (const piece of streamed.textStream) found.streamed += piece;

const place = z.object({ city: z.string().max(8), age: z.number().int().min(0).max(99) });
found.object = (await generateObject({ ...common, schema: place, prompt: "你好" })).object;

const called = [];
const tools = {
  get_weather: tool({
    description: "查询城市的天气",
    inputSchema: z.object({ city: z.string().describe("城市") }),
    execute: async ({ city }) => { called.push(city); return "晴，20度"; },
  }),
};
found.after_tool = (
  await generateText({ ...common, tools, stopWhen: stepCountIs(4), prompt: "北京的天气怎么样？" })
).text;
found.called = [...called];
const both = await generateText({
  ...common, tools, stopWhen: stepCountIs(4), prompt: "你好", output: Output.object({ schema: place }),
});
found.both = both.output;
console.log(JSON.stringify(found));
