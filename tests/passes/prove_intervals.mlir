// RUN: prove-intervals
// ERROR: HB0321 at layer 'total': the sum can reach 2,147,483,776, the accumulator holds 2,147,483,647; .*reduce in two steps
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<16777217x!quant.uniform<i8:f32, 0.5>>) -> tensor<!quant.uniform<i8:f32, 0.5>>}> ({
  ^bb0(%x: tensor<16777217x!quant.uniform<i8:f32, 0.5>>):
    %0 = "quantized.reduce_sum"(%x) <{axes = array<i64: 0>, keep = false, count = 1 : i64, multiplier = array<i32: 16385>,
      shift = array<i8: 14>, low = -128 : i64, high = 127 : i64, grid = !quant.uniform<i8:f32, 0.5>}>
      : (tensor<16777217x!quant.uniform<i8:f32, 0.5>>) -> tensor<!quant.uniform<i8:f32, 0.5>> loc("total")
    "func.return"(%0) : (tensor<!quant.uniform<i8:f32, 0.5>>) -> ()
  }) : () -> ()
}) : () -> ()
