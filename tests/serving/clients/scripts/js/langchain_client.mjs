// LangChain.js: a tool loop by hand, whose tool message carries the tool's name, and structured output.
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const model = new ChatOpenAI({
  model: "demo", apiKey: "none", maxRetries: 0, maxTokens: 200, configuration: { baseURL: `${process.argv[2]}/v1` },
});
const found = {};
const weather = tool(async () => "晴，20度", {
  name: "get_weather",
  description: "查询城市的天气",
  schema: z.object({ city: z.string().describe("城市") }),
});
const bound = model.bindTools([weather]);
const messages = [new HumanMessage({ content: "北京的天气怎么样？", name: "bob" })];
const reply = await bound.invoke(messages);
messages.push(reply);
found.called = reply.tool_calls.map((call) => call.args);
for (const call of reply.tool_calls) messages.push(await weather.invoke(call));
found.after_tool = (await bound.invoke(messages)).content;
const place = z.object({ city: z.string().max(8), age: z.number().int().min(0).max(99) });
for (const method of ["functionCalling", "jsonSchema"]) {
  found[method] = await model.withStructuredOutput(place, { method, name: "place" }).invoke("你好");
}
found.streamed = "";
for await (const piece of await model.stream("你好")) found.streamed += piece.content;
console.log(JSON.stringify(found));
