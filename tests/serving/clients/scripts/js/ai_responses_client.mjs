// Vercel's ai with its OpenAI provider, which speaks the Responses API: text, stream, an object by schema, tools.
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const model = createOpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none" }).responses("demo");
const common = { model, maxRetries: 0, maxOutputTokens: 200 };
const found = {};
const first = await generateText({ ...common, prompt: "你好" });
found.text = first.text;
const streamed = streamText({ ...common, prompt: "你好" });
found.streamed = "";
for await (const piece of streamed.textStream) found.streamed += piece;

// What was said before goes back as references to stored items.
const again = [
  { role: "user", content: "你好" }, ...first.response.messages, { role: "user", content: "Hello!" },
];
found.referenced = (await generateText({ ...common, messages: again })).usage.inputTokens > first.usage.inputTokens;

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
const steps = streamText({ ...common, tools, stopWhen: stepCountIs(4), prompt: "北京的天气怎么样？" });
found.streamed_tool = "";
for await (const piece of steps.textStream) found.streamed_tool += piece;
found.called = [...called];
console.log(JSON.stringify(found));
